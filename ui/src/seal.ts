// The first module of the page. Nothing may be added to what every object inherits, so that a name from a container
// that is used as a key by mistake throws instead of changing every object. It is not frozen: the terminal's library
// gives objects functions of inherited names, which a frozen prototype forbids.

Object.seal(Object.prototype);
