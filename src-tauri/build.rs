//! Builds what Tauri needs, and embeds the files for the containers: the agent and the built-in
//! image, as `cargo xtask assets` made them.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const CAPABILITIES: &str = "src-tauri/capabilities";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={CAPABILITIES}");
    let attributes =
        tauri_build::Attributes::new().capabilities_path_pattern("./src-tauri/capabilities/**/*");
    tauri_build::try_build(attributes)?;

    println!("cargo:rerun-if-env-changed=COVE_ASSETS");
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let folder =
        env::var_os("COVE_ASSETS").map_or_else(|| root.join("src-tauri/assets"), PathBuf::from);
    println!("cargo:rerun-if-changed={}", folder.display());
    let table = embed(&folder)?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("assets.rs"), table)?;
    Ok(())
}

/// Writes an expression with the name and content of every file in the folder. A folder that is not
/// there yet makes an app without assets, which is enough for checks and says so when it is run.
fn embed(folder: &Path) -> Result<String, Box<dyn Error>> {
    let mut files: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(),
    };
    files.retain(|file| file.is_file());
    files.sort();
    let mut table = String::from("[");
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let path = file.canonicalize()?;
        write!(
            table,
            "({name:?}, include_bytes!({:?}).as_slice()),",
            path.to_string_lossy()
        )?;
    }
    table.push(']');
    Ok(table)
}
