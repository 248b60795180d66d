//! What must be right before a window can be opened: that there is a display, and what the web view reads of
//! its environment as it starts. It is about Linux; elsewhere there is nothing to do.

/// Switches the workarounds off when it says `off`.
#[cfg(any(target_os = "linux", test))]
const SWITCH: &str = "COVE_DISPLAY_WORKAROUNDS";

/// What the workarounds depend on.
#[cfg(any(target_os = "linux", test))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Machine {
    /// Whether NVIDIA's own driver is loaded; the free one has none of these faults.
    has_nvidia: bool,
    /// Whether the windows are Wayland's.
    is_wayland: bool,
}

/// Returns the environment variables that this machine needs and the user has not set.
#[cfg(any(target_os = "linux", test))]
fn workarounds(
    machine: Machine,
    variable: impl Fn(&str) -> Option<String>,
) -> Vec<(&'static str, &'static str)> {
    if variable(SWITCH).is_some_and(|switch| switch == "off") {
        return Vec::new();
    }
    let mut wanted = Vec::new();
    if machine.has_nvidia {
        // The web view stays blank: it hands its pictures over in a way that the driver does not bear.
        wanted.push(("WEBKIT_DISABLE_DMABUF_RENDERER", "1"));
        if machine.is_wayland {
            // The app ends with "Error 71 (Protocol error) dispatching to Wayland display".
            wanted.push(("__NV_DISABLE_EXPLICIT_SYNC", "1"));
        }
    }
    wanted.retain(|(name, _)| variable(name).is_none());
    wanted
}

#[cfg(target_os = "linux")]
pub(crate) use self::linux::{open, work_around};

#[cfg(target_os = "linux")]
mod linux {
    use std::env;
    use std::os::unix::process::CommandExt as _;
    use std::path::Path;
    use std::process::Command;

    use super::{Machine, workarounds};

    /// Starts this program anew with what the machine needs in its environment: libraries have read theirs
    /// before any code of ours runs. Returns where nothing is needed, and where that fails.
    pub(crate) fn work_around() {
        let variable = |name: &str| {
            let value = env::var_os(name)?;
            Some(value.to_string_lossy().into_owned())
        };
        let needed = workarounds(here(), variable);
        let Some(program) = env::current_exe().ok().filter(|_| !needed.is_empty()) else {
            return;
        };
        // It returns only when it fails; then the app goes on without.
        let _ = Command::new(program)
            .args(env::args_os().skip(1))
            .envs(needed)
            .exec();
    }

    fn here() -> Machine {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_x11_wanted = env::var_os("GDK_BACKEND").is_some_and(|backend| backend == "x11");
        Machine {
            has_nvidia: ["/proc/driver/nvidia/version", "/sys/module/nvidia_drm"]
                .iter()
                .any(|place| Path::new(place).exists()),
            is_wayland: is_set("WAYLAND_DISPLAY") && !is_x11_wanted,
        }
    }

    /// Opens the display.
    ///
    /// # Errors
    /// A sentence for people, when there is none.
    pub(crate) fn open() -> Result<(), String> {
        // Tauri does the same, and panics where it fails.
        gtk::init().map_err(|_| {
            let tried: Vec<_> = ["DISPLAY", "WAYLAND_DISPLAY"]
                .into_iter()
                .filter_map(|name| Some(format!("{name}={}", env::var(name).ok()?)))
                .collect();
            let found = if tried.is_empty() {
                "neither DISPLAY nor WAYLAND_DISPLAY is set".to_owned()
            } else {
                format!("{} cannot be opened", tried.join(" "))
            };
            format!("Cove needs a graphical display: {found}. Start it from a desktop session.")
        })
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn work_around() {}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "it can fail elsewhere")]
pub(crate) fn open() -> Result<(), String> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DMABUF: (&str, &str) = ("WEBKIT_DISABLE_DMABUF_RENDERER", "1");
    const SYNC: (&str, &str) = ("__NV_DISABLE_EXPLICIT_SYNC", "1");

    #[track_caller]
    fn check(
        (has_nvidia, is_wayland): (bool, bool),
        environment: &[(&str, &str)],
        expected: &[(&str, &str)],
    ) {
        let machine = Machine {
            has_nvidia,
            is_wayland,
        };
        let variable = |wanted: &str| {
            let found = environment.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        };
        let needed = workarounds(machine, variable);
        assert_eq!(needed, expected, "{machine:?} {environment:?}");
        // The program that is started with them needs nothing more: it does not start itself for ever.
        let again = workarounds(machine, |name| {
            let set = needed.iter().find(|(set, _)| *set == name);
            set.map(|(_, value)| (*value).to_owned())
                .or_else(|| variable(name))
        });
        assert_eq!(again, []);
    }

    #[test]
    fn only_a_machine_with_the_faulty_driver_is_worked_around() {
        check((false, false), &[], &[]);
        check((false, true), &[], &[]);
        check((true, false), &[], &[DMABUF]);
        check((true, true), &[], &[DMABUF, SYNC]);
    }

    #[test]
    fn what_the_user_has_set_stays_and_the_workarounds_can_be_switched_off() {
        let user = |value| [("WEBKIT_DISABLE_DMABUF_RENDERER", value)];
        for value in ["0", "1", ""] {
            check((true, false), &user(value), &[]);
            check((true, true), &user(value), &[SYNC]);
        }
        check((true, true), &[(SWITCH, "off")], &[]);
        check((true, true), &[(SWITCH, "on")], &[DMABUF, SYNC]);
    }
}
