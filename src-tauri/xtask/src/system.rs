//! Which system this is, and what its packages are called.

/// What a command needs from the system beyond the toolchains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// To compile the app and make the built-in image.
    Build,
    /// To open the app on a virtual display.
    Window,
    /// To start an engine and a registry.
    Engine,
}

/// A system, as far as its packages differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    /// Debian, Ubuntu and what follows them.
    Debian,
    Fedora,
    Arch,
    OtherLinux,
    MacOs,
    Windows,
}

/// A Debian package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    /// A program whose presence is as good, wherever it came from.
    pub(crate) or_program: Option<&'static str>,
}

const fn package(name: &'static str) -> Package {
    Package {
        name,
        or_program: None,
    }
}

const fn package_or(name: &'static str, program: &'static str) -> Package {
    Package {
        name,
        or_program: Some(program),
    }
}

/// What compiling the app and making the built-in image takes.
const BUILD: [Package; 11] = [
    package("build-essential"),
    package("pkg-config"),
    package("libwebkit2gtk-4.1-dev"),
    package("libgtk-3-dev"),
    package("libayatana-appindicator3-dev"),
    package("librsvg2-dev"),
    package("libssl-dev"),
    package("libxdo-dev"),
    package("patchelf"),
    package("file"),
    package("busybox-static"),
];

/// What opening the app on a virtual display takes.
const WINDOW: [Package; 9] = [
    package_or("xvfb", "Xvfb"),
    package_or("webkit2gtk-driver", "WebKitWebDriver"),
    package_or("dbus", "dbus-run-session"),
    package("at-spi2-core"),
    package("fonts-dejavu-core"),
    // What is used in a terminal; that test is skipped where one is missing.
    package_or("vim-tiny", "vi"),
    package_or("htop", "htop"),
    package_or("tmux", "tmux"),
    package_or("less", "less"),
];

/// What starting an engine and a registry takes.
const ENGINE: [Package; 8] = [
    package_or("docker.io", "dockerd"),
    package_or("docker-registry", "docker-registry"),
    package_or("iptables", "iptables"),
    package_or("iproute2", "ip"),
    package_or("util-linux", "unshare"),
    // The second engine; its tests are skipped where it is not.
    package_or("podman", "podman"),
    package("netavark"),
    package_or("crun", "runc"),
];

/// Debian 13 has the command line in a package of its own.
pub(crate) const DOCKER_COMMAND: Package = package_or("docker-cli", "docker");

impl System {
    /// Returns the system that this was compiled for and runs on.
    pub(crate) fn here() -> Self {
        if cfg!(target_os = "macos") {
            Self::MacOs
        } else if cfg!(windows) {
            Self::Windows
        } else {
            Self::from_os_release(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
        }
    }

    /// Tells a Linux by its `/etc/os-release`.
    pub(crate) fn from_os_release(text: &str) -> Self {
        let value = |key| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_default()
                .trim_matches(['"', '\''])
                .to_owned()
        };
        let names = format!("{} {}", value("ID="), value("ID_LIKE="));
        names
            .split_whitespace()
            .find_map(|name| match name {
                "debian" | "ubuntu" => Some(Self::Debian),
                "fedora" | "rhel" => Some(Self::Fedora),
                "arch" => Some(Self::Arch),
                _ => None,
            })
            .unwrap_or(Self::OtherLinux)
    }

    /// Returns the commands that a person types to get what is needed.
    pub(crate) fn commands(self, needs: &[Need]) -> Vec<String> {
        let all = |build: &str, window: &str, engine: &str| {
            needs
                .iter()
                .map(|need| match need {
                    Need::Build => build.to_owned(),
                    Need::Window => window.to_owned(),
                    Need::Engine => engine.to_owned(),
                })
                .filter(|command| !command.is_empty())
                .collect()
        };
        match self {
            Self::Debian => {
                let names: Vec<&str> = needs
                    .iter()
                    .flat_map(|need| packages(*need))
                    .map(|package| package.name)
                    .collect();
                vec![
                    "sudo apt-get update".to_owned(),
                    format!(
                        "sudo apt-get install -y --no-install-recommends {}",
                        names.join(" ")
                    ),
                ]
            }
            Self::Fedora => all(
                "sudo dnf install -y gcc gcc-c++ make pkgconf-pkg-config webkit2gtk4.1-devel gtk3-devel \
                 libappindicator-gtk3-devel librsvg2-devel openssl-devel libxdo-devel patchelf file busybox dpkg rpm-build",
                "sudo dnf install -y xorg-x11-server-Xvfb webkit2gtk4.1 dbus-daemon at-spi2-core dejavu-sans-mono-fonts",
                "sudo dnf install -y moby-engine iptables iproute util-linux podman netavark",
            ),
            Self::Arch => all(
                "sudo pacman -S --needed base-devel pkgconf webkit2gtk-4.1 gtk3 libayatana-appindicator librsvg openssl \
                 xdotool patchelf file busybox dpkg",
                "sudo pacman -S --needed xorg-server-xvfb webkit2gtk-4.1 dbus at-spi2-core ttf-dejavu",
                "sudo pacman -S --needed docker iptables iproute2 util-linux podman netavark",
            ),
            Self::OtherLinux => all(
                "# install a C compiler, pkg-config, and the development files of WebKitGTK 4.1, GTK 3, librsvg, OpenSSL, \
                 libxdo and an appindicator; a static busybox",
                "# install Xvfb, WebKitWebDriver (of WebKitGTK) and dbus-run-session",
                "# install dockerd, docker-registry, ip and unshare",
            ),
            Self::MacOs => all(
                "xcode-select --install",
                "",
                "brew install --cask docker   # or colima, OrbStack, Podman",
            ),
            Self::Windows => all(
                "winget install Microsoft.VisualStudio.2022.BuildTools --override \"--add Microsoft.VisualStudio.Workload.VCTools --includeRecommended --passive\"",
                "",
                "winget install Docker.DockerDesktop",
            ),
        }
    }

    /// Returns the commands that get Rust or Node on this system.
    pub(crate) fn toolchain_command(self, tool: Tool) -> &'static str {
        match (tool, self) {
            (Tool::Rust, Self::Windows) => "winget install Rustlang.Rustup && rustup update stable",
            (Tool::Rust, _) => {
                "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh   # or: rustup update stable"
            }
            (Tool::Node, Self::Windows) => "winget install OpenJS.NodeJS.LTS",
            (Tool::Node, Self::MacOs) => "brew install node",
            (Tool::Node, Self::Fedora) => "sudo dnf install -y nodejs npm",
            (Tool::Node, Self::Arch) => "sudo pacman -S --needed nodejs npm",
            (Tool::Node, Self::Debian | Self::OtherLinux) => {
                "curl -fsSL https://fnm.vercel.app/install | bash && fnm install 22   # or from https://nodejs.org"
            }
        }
    }
}

/// A toolchain that must be there before anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Rust,
    Node,
}

/// Returns the Debian packages that a need takes.
pub(crate) fn packages(need: Need) -> &'static [Package] {
    match need {
        Need::Build => &BUILD,
        Need::Window => &WINDOW,
        Need::Engine => &ENGINE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linux_is_told_by_its_name_and_by_what_it_follows() {
        let system = System::from_os_release;
        assert_eq!(
            system("NAME=\"Debian GNU/Linux\"\nID=debian\n"),
            System::Debian
        );
        assert_eq!(
            system("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"),
            System::Debian
        );
        assert_eq!(
            system("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"),
            System::Fedora
        );
        assert_eq!(system("ID=manjaro\nID_LIKE=arch\n"), System::Arch);
        assert_eq!(system("ID=nixos\n"), System::OtherLinux);
        assert_eq!(system(""), System::OtherLinux);
    }

    #[test]
    fn every_system_says_how_to_get_what_a_build_needs() {
        for system in [
            System::Debian,
            System::Fedora,
            System::Arch,
            System::OtherLinux,
            System::MacOs,
            System::Windows,
        ] {
            let commands = system.commands(&[Need::Build]);
            assert!(!commands.is_empty(), "{system:?}");
            assert!(
                commands.iter().all(|command| !command.contains("  s")),
                "{commands:?}"
            );
        }
    }

    #[test]
    fn the_commands_for_debian_name_every_package() {
        let commands = System::Debian.commands(&[Need::Build, Need::Engine]);
        assert_eq!(commands[0], "sudo apt-get update");
        for package in BUILD.iter().chain(&ENGINE) {
            assert!(commands[1].contains(package.name), "{}", package.name);
        }
    }
}
