const days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const months = [
  ...["January", "February", "March", "April", "May", "June"],
  ...["July", "August", "September", "October", "November", "December"],
];

/** A date as C's `strftime` writes it in the C locale; a directive that is not known stays as it is. */
export function strftime(date: Date, format: string): string {
  const pad = (n: number, width = 2, fill = "0") => String(n).padStart(width, fill);
  const [year, month, day, weekday] = [date.getFullYear(), date.getMonth(), date.getDate(), date.getDay()];
  const [hour, minute, second] = [date.getHours(), date.getMinutes(), date.getSeconds()];
  const yearDay = Math.round((Date.UTC(year, month, day) - Date.UTC(year, 0, 1)) / 864e5);
  const known: Readonly<Record<string, () => string>> = {
    a: () => days[weekday].slice(0, 3),
    A: () => days[weekday],
    b: () => months[month].slice(0, 3),
    B: () => months[month],
    c: () => strftime(date, "%a %b %e %H:%M:%S %Y"),
    C: () => pad(Math.floor(year / 100)),
    d: () => pad(day),
    D: () => strftime(date, "%m/%d/%y"),
    e: () => pad(day, 2, " "),
    f: () => pad(date.getMilliseconds() * 1000, 6),
    F: () => strftime(date, "%Y-%m-%d"),
    h: () => months[month].slice(0, 3),
    H: () => pad(hour),
    I: () => pad(hour % 12 || 12),
    j: () => pad(yearDay + 1, 3),
    k: () => pad(hour, 2, " "),
    l: () => pad(hour % 12 || 12, 2, " "),
    m: () => pad(month + 1),
    M: () => pad(minute),
    n: () => "\n",
    p: () => hour < 12 ? "AM" : "PM",
    P: () => hour < 12 ? "am" : "pm",
    r: () => strftime(date, "%I:%M:%S %p"),
    R: () => strftime(date, "%H:%M"),
    s: () => String(Math.floor(date.getTime() / 1000)),
    S: () => pad(second),
    t: () => "\t",
    T: () => strftime(date, "%H:%M:%S"),
    u: () => String(weekday || 7),
    U: () => pad(Math.floor((yearDay + 7 - weekday) / 7)),
    w: () => String(weekday),
    W: () => pad(Math.floor((yearDay + 7 - (weekday + 6) % 7) / 7)),
    x: () => strftime(date, "%m/%d/%y"),
    X: () => strftime(date, "%H:%M:%S"),
    y: () => pad(year % 100),
    Y: () => String(year),
    z: () => "",
    Z: () => "",
    "%": () => "%",
  };
  // `-` takes the padding away.
  return format.replace(/%(-?)([a-zA-Z%])/g, (found, plain, directive) => {
    if (!Object.hasOwn(known, directive)) return found;
    const text = known[directive]();
    return plain ? text.replace(/^[0 ]+(?=.)/, "") : text;
  });
}
