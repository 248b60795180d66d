//! Measures the use of a ready session: typing, files, searches and the connection, each beside the tool that does the same.
//!
//! Run by `cargo xtask bench workspace`. What is compared is measured in turns, so that noise of the machine meets all alike;
//! medians, the 99th of a hundred and ratios are printed and kept as JSON.

#[cfg(target_os = "linux")]
mod agent;
#[cfg(target_os = "linux")]
mod bench;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod ports;
#[cfg(target_os = "linux")]
mod table;
#[cfg(target_os = "linux")]
mod transfers;
#[cfg(target_os = "linux")]
mod typing;

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    use std::path::PathBuf;

    let mut arguments = std::env::args_os().skip(1);
    let out = arguments.next().map(PathBuf::from);
    let parts: Vec<_> = arguments.collect();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let bench = bench::Bench::start().await?;
        let mut table = table::Table::default();
        let is_wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
        if is_wanted("agent") {
            agent::measure(&bench, &mut table).await?;
        }
        if is_wanted("typing") {
            typing::measure(&bench, &mut table).await?;
        }
        if is_wanted("files") {
            files::measure(&bench, &mut table).await?;
        }
        if is_wanted("names") {
            names::measure(&bench, &mut table).await?;
        }
        if is_wanted("transfers") {
            transfers::measure(&bench, &mut table).await?;
        }
        if is_wanted("ports") {
            ports::measure(&bench, &mut table).await?;
        }
        table.print();
        if let Some(out) = out {
            table.keep(&out)?;
        }
        bench.end().await
    })
}

#[cfg(not(target_os = "linux"))]
fn main() {}
