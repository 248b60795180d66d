// What a session reaches over the network, in words.

import type { Network } from "../bindings/Network";

export const NETWORK_NAMES: Record<Network, string> = {
  own: "A way out, apart from other sessions",
  none: "No network",
};

export const NETWORK_HINTS: Record<Network, string> = {
  own: "Programs reach the internet and services of this machine that listen beyond 127.0.0.1, but no other session.",
  none: "Programs reach nothing. Files and terminals work as ever. A session keeps this choice.",
};
