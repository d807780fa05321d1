import { assertEquals, assertThrows } from "@std/assert";
import { DeviceError } from "../../../core/errors.ts";
import { Failures } from "./failures.ts";

/** A device that reports the errors it is given. */
function reporting() {
  const device = Object.assign(new EventTarget(), { lost: new Promise<GPUDeviceLostInfo>(() => {}) });
  const report = (error: GPUError) => device.dispatchEvent(Object.assign(new Event("uncapturederror"), { error }));
  return { failures: new Failures(device as unknown as GPUDevice, "webgpu (Toy GPU)"), report };
}

Deno.test("a device that is out of memory says so with a remedy, once", () => {
  const { failures, report } = reporting();
  report(new GPUOutOfMemoryError("no room for 4 GiB"));
  const { message } = assertThrows(() => failures.checkNow(), DeviceError);
  assertEquals(
    message,
    "The device webgpu (Toy GPU) is out of memory (no room for 4 GiB): use a smaller batch, a narrower --dtype, " +
      "or --device cpu",
  );
  failures.checkNow();
});

Deno.test("of several failures the first is reported: the others follow from it", () => {
  const { failures, report } = reporting();
  report(new GPUValidationError("the buffer is too small"));
  report(new GPUOutOfMemoryError("no room"));
  const { message } = assertThrows(() => failures.checkNow(), DeviceError);
  assertEquals(message, "The device webgpu (Toy GPU) refused a command: the buffer is too small");
  failures.checkNow();
});
