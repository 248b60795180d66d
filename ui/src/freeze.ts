// The first module of the page. What every object inherits is frozen, so that a name from a container that is used as a
// key by mistake throws instead of changing every object.

const inherited = Object.prototype.toString;

// The terminal's library gives an object a `toString` of its own by assignment, which a frozen one would forbid.
Object.defineProperty(Object.prototype, "toString", {
  get: () => inherited,
  set(this: object, value: unknown) {
    Object.defineProperty(this, "toString", { value, writable: true, enumerable: true, configurable: true });
  },
});
Object.freeze(Object.prototype);
