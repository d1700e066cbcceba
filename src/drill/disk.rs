//! A demo's node with a disk of its own, small enough to be filled: a file system in memory over its data directory. Needs root.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use tokio::process::Command;

/// Beside the data directory, where its files are while they are not in it.
const ASIDE: &str = "data.aside";
/// What takes all the room that is left.
const FILLER: &str = "filler";
/// What the node may still write before the disk is full, bytes: enough to start.
const ROOM_BYTES: u64 = 256 * 1024 * 1024;
/// Written at a time, bytes.
const BLOCK_BYTES: usize = 1024 * 1024;

/// Whether `data` can be put on a disk of its own.
pub(super) async fn check(data: &Path) -> anyhow::Result<()> {
    let probe = data.with_file_name("disk.probe");
    std::fs::create_dir_all(&probe).with_context(|| format!("make {}", probe.display()))?;
    let tried = mount(&probe, BLOCK_BYTES as u64).await;
    if tried.is_ok() {
        unmount(&probe).await?;
    }
    std::fs::remove_dir(&probe).with_context(|| format!("remove {}", probe.display()))?;
    tried.context(
        "full-disk mounts a small file system over a node's data directory, for which it needs root (CAP_SYS_ADMIN)",
    )
}

/// Moves the data of a node that does not run to a disk of its own.
pub(super) async fn put_on_small(data: &Path) -> anyhow::Result<()> {
    let aside = aside(data);
    ensure!(
        !aside.exists(),
        "{} is there: an earlier drill was interrupted; `postrider drill heal` first",
        aside.display()
    );
    std::fs::rename(data, &aside).with_context(|| format!("move {} aside", data.display()))?;
    std::fs::create_dir(data).with_context(|| format!("make {}", data.display()))?;
    mount(data, used(&aside)? + ROOM_BYTES).await?;
    copy(&aside, data).await
}

/// Leaves no room.
pub(super) fn fill(data: &Path) -> anyhow::Result<()> {
    let path = data.join(FILLER);
    let mut file = std::fs::File::create(&path).with_context(|| format!("make {}", path.display()))?;
    let block = vec![0; BLOCK_BYTES];
    // By large blocks, and then what is left by pages.
    for size in [BLOCK_BYTES, 4096] {
        loop {
            match file.write_all(block.get(..size).unwrap_or(&block)) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error).with_context(|| format!("fill {}", path.display())),
            }
        }
    }
    Ok(())
}

/// There is room again.
pub(super) fn free(data: &Path) -> anyhow::Result<()> {
    let path = data.join(FILLER);
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
    }
}

/// Brings the data of a node that does not run back to where it was, from whatever step the drill had come to.
pub(super) async fn put_back(data: &Path) -> anyhow::Result<()> {
    let aside = aside(data);
    let back = data.with_file_name("data.back");
    if is_mounted(data)? {
        // Nothing wrote to it before the copy was whole: then what is aside is what counts.
        if !aside.exists() {
            if back.exists() {
                std::fs::remove_dir_all(&back).with_context(|| format!("remove {}", back.display()))?;
            }
            std::fs::create_dir(&back).with_context(|| format!("make {}", back.display()))?;
            copy(data, &back).await?;
            std::fs::rename(&back, &aside).with_context(|| format!("move {}", back.display()))?;
        }
        unmount(data).await?;
    }
    if aside.exists() {
        std::fs::remove_dir(data).with_context(|| format!("remove {}, which should be empty", data.display()))?;
        std::fs::rename(&aside, data).with_context(|| format!("move {} back", aside.display()))?;
    }
    Ok(())
}

/// From here on the small disk has what counts: the node is about to write to it.
pub(super) fn rely_on_small(data: &Path) -> anyhow::Result<()> {
    // In one step: half of it must not be taken for the whole.
    let obsolete = data.with_file_name("data.obsolete");
    std::fs::rename(aside(data), &obsolete).with_context(|| format!("rename what is beside {}", data.display()))?;
    std::fs::remove_dir_all(&obsolete).with_context(|| format!("remove {}", obsolete.display()))
}

/// Whether the node's data is on a disk of its own now.
pub(super) fn is_small(data: &Path) -> anyhow::Result<bool> {
    Ok(is_mounted(data)? || aside(data).exists())
}

fn aside(data: &Path) -> PathBuf {
    data.with_file_name(ASIDE)
}

/// Bytes of all files below a directory.
fn used(dir: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry.with_context(|| format!("list {}", dir.display()))?;
        let kind = entry.file_type().with_context(|| format!("look at {}", entry.path().display()))?;
        sum += match kind.is_dir() {
            true => used(&entry.path())?,
            false => entry.metadata().with_context(|| format!("look at {}", entry.path().display()))?.len(),
        };
    }
    Ok(sum)
}

fn is_mounted(path: &Path) -> anyhow::Result<bool> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    // Spaces are written as \040 there.
    let name = path.to_string_lossy().replace(' ', "\\040");
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(&name)))
}

async fn mount(at: &Path, bytes: u64) -> anyhow::Result<()> {
    let size = format!("size={bytes},mode=700");
    run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "postrider-drill"]).arg(at)).await
}

async fn unmount(at: &Path) -> anyhow::Result<()> {
    run(Command::new("umount").arg(at)).await
}

/// With everything that is in it; files keep their holes.
async fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    run(Command::new("cp").arg("-a").arg(from.join(".")).arg(to)).await
}

async fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().await.with_context(|| format!("run {:?}", command.as_std().get_program()))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
