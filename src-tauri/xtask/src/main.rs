//! The project's own commands. `cargo xtask` alone lists them.
//!
//! They only arrange: compiling is cargo's, the UI npm's, the packages Tauri's. What they need is set up on the way,
//! so that a fresh clone on a fresh machine gets by with `cargo xtask run`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks on the terminal"
)]

mod assets;
mod base_image;
mod bench;
mod headless;
mod icons;
mod package;
mod run;
mod setup;
mod summary;
mod supply;
mod system;
mod test;
mod testbed;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::system::Need;
use crate::workspace::Workspace;

const USAGE: &str = "\
The project's own commands: cargo xtask <command>

  run [--headless]    set up, build and open the app; without a display, do the main job on a virtual one
  test [filter]       set up, then every check and test; with a filter, only the tests whose name has it
  test faults         only what breaks around Cove, at length: hundreds of runs and their table
  build               make the release binary, target/release/cove
  bundle              make the installers of this system
  setup               only the set-up of all of these
  assets              only the agent and the built-in image
  icons               make the icons anew from icons/cove.svg
  bench create        compare creating a session with the bare engine and its command line
  bench workspace [parts]  compare the use of a session with the tools that do the same: all, which takes 8 minutes,
                      or only these of agent, typing, files, names, transfers and ports
  bench eta [options] judge the remaining time that Cove tells, on 49 real pulls; 10 minutes
    --quick             one image only, 8 pulls
    --record FOLDER     keep what was heard of each run as a file there
    --from FOLDER       judge what was recorded there instead of pulling
    --retell            judge what the present estimator would have told
    --simulated         judge hundreds of simulated pulls beside a perfect forecaster; two minutes, no engine
    --calibrate         print how wide ranges must be, by simulated pulls over other lines
  testbed [command]   run a command with a test engine and registries, or show how to reach them

Settings by environment:
  COVE_TARGET_DIR     where cargo builds, shared by all clones (CARGO_TARGET_DIR goes before it)
  COVE_FAULT_RUNS     how many runs the tests of faults make in all
  COVE_FAULT_SEED     the first of their seeds, to see a run again
  COVE_ASSETS         a folder with ready-made agents and images, instead of making them
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match dispatch(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[&str]) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match arguments {
        ["run"] => return run::run(&workspace, false),
        ["run", "--headless"] => return run::run(&workspace, true),
        ["test"] => return test::test(&workspace, None),
        ["test", "faults"] => return test::faults(&workspace),
        ["test", filter] => return test::test(&workspace, Some(filter)),
        ["build"] => package::build(&workspace)?,
        ["bundle"] => package::bundle(&workspace)?,
        ["setup"] => setup::set_up(&workspace, &[Need::Build, Need::Window, Need::Engine])?,
        ["assets"] => {
            let folder = assets::make(&workspace)?;
            println!("assets: {}", folder.display());
        }
        ["icons"] => icons::make(&workspace)?,
        ["bench", "create"] => bench::create(&workspace)?,
        ["bench", "workspace", parts @ ..] => bench::workspace(&workspace, parts)?,
        ["bench", "eta", options @ ..] => bench::eta(&workspace, options)?,
        ["testbed", command @ ..] => return testbed::run(command),
        [] | ["help" | "--help" | "-h"] => print!("{USAGE}"),
        _ => bail!("no such command: `{}`\n\n{USAGE}", arguments.join(" ")),
    }
    Ok(ExitCode::SUCCESS)
}
