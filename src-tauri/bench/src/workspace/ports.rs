//! A forwarded port beside one that the engine publishes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cove_core::image::ImageReference;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::bench::Bench;
use crate::table::Table;

/// Bytes that are fetched.
const LONG: usize = 500_000_000;
const ROUNDS: usize = 5;
const SHORT: usize = 200;
const PORT: u16 = 18_000;
const PUBLISHED: &str = "bench-published";
/// How often it is looked whether a server is there.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub(crate) async fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let fill = format!("head -c {LONG} /dev/zero > /tmp/long; echo short > /tmp/short; cd /tmp");
    let image = ImageReference::built_in().to_string();
    let script = format!("{fill}; exec busybox httpd -f -p 80");
    bench.engine.docker(&[
        "run",
        "--detach",
        "--name",
        PUBLISHED,
        "--user",
        "0",
        "--publish",
        "127.0.0.1::80",
        "--entrypoint",
        "sh",
        &image,
        "-c",
        &script,
    ])?;
    let place = bench.engine.docker(&["port", PUBLISHED, "80/tcp"])?;
    let published: u16 = place
        .trim()
        .rsplit(':')
        .next()
        .context("no port")?
        .parse()?;
    bench.sh(&format!("{fill}; busybox httpd -p {PORT}"))?;
    let list = bench
        .sessions
        .ready(bench.id)
        .await?
        .forward_port(PORT, None)?;
    let forwarded = list.ports.iter().find(|port| port.port == PORT);
    let forwarded = forwarded
        .and_then(|port| port.local.as_ref())
        .context("not forwarded")?
        .port;
    for port in [published, forwarded] {
        while !fetch(port, "/short").await.is_ok_and(|length| length >= 6) {
            sleep(LOOK_AGAIN).await;
        }
    }
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    let (mut bare_short, mut ours_short) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for (port, long, short) in [
            (published, &mut bare, &mut bare_short),
            (forwarded, &mut ours, &mut ours_short),
        ] {
            long.push(timed(port, "/long", LONG).await?);
            // Of one connection after another, each asked and ended.
            for _ in 0..SHORT / ROUNDS {
                short.push(timed(port, "/short", 6).await?);
            }
        }
        ensure!(ours.len() == round + 1, "a round was lost");
    }
    bench.engine.docker(&["rm", "--force", PUBLISHED])?;
    table.compared(
        "500 MB from a forwarded port",
        &ours,
        ("published", &bare),
        "≤ 2.0 (half the throughput)",
    );
    table.compared(
        "a short answer of it, connected and ended",
        &ours_short,
        ("published", &bare_short),
        "< 1 ms more",
    );
    Ok(())
}

async fn timed(port: u16, path: &str, least: usize) -> Result<Duration> {
    let begin = Instant::now();
    let length = fetch(port, path).await?;
    ensure!(length >= least, "{length} bytes");
    Ok(begin.elapsed())
}

/// Returns how many bytes came.
async fn fetch(port: u16, path: &str) -> Result<usize> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (mut length, mut piece) = (0, vec![0; 256 << 10]);
    loop {
        match stream.read(&mut piece).await? {
            0 => return Ok(length),
            count => length += count,
        }
    }
}
