" :LowrankExplain shows the kernels of the buffer's `explainThis` in a split. Needs denops.vim.
if exists('g:loaded_lowrank')
  finish
endif
let g:loaded_lowrank = 1

function! s:explain() abort
  if !exists('g:loaded_denops')
    echo 'LowrankExplain needs the plugin denops.vim (vim-denops/denops.vim): install it'
    return
  endif
  let l:number = bufnr()
  call denops#plugin#wait_async('lowrank', { -> denops#notify('lowrank', 'explain', [l:number]) })
endfunction

command! LowrankExplain call s:explain()
