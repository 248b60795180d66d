// Phases and states as the user reads them.

import type { Phase } from "../bindings/Phase";
import type { SessionState } from "../bindings/SessionState";

/** The phases that do work, in order. */
export const WORKING_PHASES = [
  "Starting",
  "PullingImage",
  "CreatingVolume",
  "CreatingContainer",
  "StartingContainer",
] as const satisfies readonly Phase[];

export const PHASE_NAMES: Record<Phase, string> = {
  Starting: "Starting",
  PullingImage: "Pulling image",
  CreatingVolume: "Creating volume",
  CreatingContainer: "Creating container",
  StartingContainer: "Starting container",
  Ready: "Ready",
};

/** Where a phase's share of the bar ends, in percent. */
export const BAND_ENDS = [10, 25, 45, 70, 90] as const;

/** What a stopped session without a container is called. */
export const KEPT_NAME = "Files kept";

export const STATE_NAMES: Record<SessionState, string> = {
  provisioning: "Setting up",
  ready: "Ready",
  paused: "Paused",
  stopped: "Stopped",
  failed: "Failed",
  cancelled: "Cancelled",
  interrupted: "Interrupted",
  away: "Away",
};
