//! An engine whose disk is full, or has no room for another file: the run says so, leaves nothing, and the retry works
//! when there is room.

use cove_core::event::{SessionEvent, Undone};
use cove_testbed::{DiskSize, FaultRecord, SmallDisk, skip};

use crate::support::{App, Book, Ground, Plot, code_of, one_of, random, seeds, up_to_number};

/// What the disk lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    Bytes,
    Inodes,
}

/// What a run needs of the disk: an image's layers, or no more than a volume and a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Image,
    Container,
}

async fn check(ground: &Ground, app: &App, lack: Lack, seed: u64) -> FaultRecord {
    let mut random = random(seed);
    let disk = ground.disk.as_ref().unwrap();
    let need = one_of(&mut random, &[Need::Image, Need::Container]);
    let mut record = FaultRecord {
        kind: "disk".to_owned(),
        phase: format!("{need:?}"),
        fault: format!("no {lack:?} left"),
        seed,
        ..FaultRecord::default()
    };
    ground.engine.remove_image(&ground.cold).unwrap();
    let image = match need {
        Need::Image => &ground.cold,
        Need::Container => &ground.tiny,
    };
    match lack {
        // A container takes some tens of kilobytes, the image a megabyte packed and another unpacked.
        Lack::Bytes => disk.fill(up_to_number(&mut random, 40_000)).unwrap(),
        Lack::Inodes => {
            let left = up_to_number(&mut random, 12);
            disk.fill_inodes(usize::try_from(left).unwrap()).unwrap();
        }
    }
    let id = app.create(Some(image));
    let told = async {
        match app.end(id).await? {
            SessionEvent::Failed(failed) => {
                "failed".clone_into(&mut record.outcome);
                record.code = code_of(&failed.error);
                if record.code != "DISK_FULL" {
                    return Err(format!("not DISK_FULL: {}", failed.error.message));
                }
                // The engine removes a network and cannot write that down, which it then calls a failure.
                let is_network = |undone: &Undone| undone.what.starts_with("Network");
                let mut left = failed
                    .undone
                    .iter()
                    .filter(|undone| undone.failure.is_some());
                if left.any(|undone| !is_network(undone)) {
                    return Err(format!("not taken back: {:?}", failed.undone));
                }
                // Also while the disk is full.
                record.leftovers = ground.leftovers(id).await;
            }
            // What was left was enough.
            SessionEvent::Ready(_) => "ready".clone_into(&mut record.outcome),
            other => return Err(format!("{other:?}")),
        }
        disk.free().unwrap();
        app.until_ready(id).await?;
        app.delete(id).await
    };
    if let Err(problem) = told.await {
        record.broken = problem;
    }
    disk.free().unwrap();
    // Whatever happened, the next run begins with a clean table.
    let _ = app.delete(id).await;
    record.leftovers += ground.leftovers(id).await;
    record.bystanders = ground.bystanders.touched();
    record
}

async fn check_all(lack: Lack, size: DiskSize) {
    if let Some(reason) = SmallDisk::cannot_mount() {
        return skip(reason);
    }
    let plot = Plot {
        disk: Some(SmallDisk::new(size).unwrap()),
        ..Plot::default()
    };
    let Some(ground) = Ground::new(plot) else {
        return;
    };
    let app = ground.app();
    let mut book = Book::default();
    for seed in seeds(6) {
        book.add(check(&ground, &app, lack, seed).await);
    }
    assert!(book.has("failed"), "the disk was never full");
    book.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_as_one_and_nothing_is_left_on_it() {
    let size = DiskSize {
        megabytes: 96,
        inodes: None,
    };
    check_all(Lack::Bytes, size).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_for_another_file_is_told_as_a_full_one() {
    let size = DiskSize {
        megabytes: 96,
        inodes: Some(3_000),
    };
    check_all(Lack::Inodes, size).await;
}
