//! A disk of its own for a node: an image with ext4, loop-mounted. It can be full, and it can hang.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

/// What mounts a volume and may be missing.
const NEEDED: &str = "/dev/loop-control";
/// A file system is in use for a moment after the last process has closed it.
const UNMOUNT_DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Volume {
    image: PathBuf,
    mount: PathBuf,
}

/// Whether volumes can be mounted here. Where not, that is said; in CI it has to be named as missing.
pub(crate) fn may_mount() -> bool {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if is_root && Path::new(NEEDED).exists() {
        return true;
    }
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    assert!(
        variable("CI") != "true" || variable("POSTRIDER_ALLOW_MISSING").split(',').any(|name| name.trim() == NEEDED),
        "no loop devices, or no root; POSTRIDER_ALLOW_MISSING={NEEDED} passes over what needs them"
    );
    eprintln!("passed over: no loop devices, or no root");
    false
}

fn call(program: &str, words: &[&str], path: &Path) -> bool {
    let output = Command::new(program).args(words).arg(path).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}")).status.success()
}

impl Volume {
    /// A volume of `bytes` at `mount`, whose image is in `dir`.
    pub(crate) fn mount(dir: &Path, mount: &Path, bytes: u64) -> Self {
        std::fs::create_dir_all(mount).expect("a directory");
        let name = mount.file_name().expect("a name").to_string_lossy();
        let image = dir.join(format!("{name}.image"));
        File::create_new(&image).and_then(|file| file.set_len(bytes)).expect("an image");
        // No blocks are kept for root: full is full.
        assert!(call("mkfs.ext4", &["-q", "-F", "-m", "0"], &image), "a file system");
        let image_name = image.to_string_lossy().into_owned();
        assert!(call("mount", &["-o", "loop", &image_name], mount), "a mounted file system");
        Self { image, mount: mount.to_owned() }
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }

    /// Takes all room that is left.
    pub(crate) fn fill(&self) {
        let ballast = self.ballast();
        File::create(&ballast).expect("a file");
        // By ever smaller pieces, until not a block is left.
        for bytes in [16 << 20, 1 << 20, 64 << 10, 4 << 10] {
            let mut at = std::fs::metadata(&ballast).expect("a file").len();
            let (piece, name) = (bytes.to_string(), ballast.clone());
            while call("fallocate", &["-o", &at.to_string(), "-l", &piece], &name) {
                at += bytes;
            }
        }
    }

    /// Gives it back.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("the ballast goes");
    }

    /// What is written from now on waits.
    pub(crate) fn freeze(&self) {
        assert!(call("fsfreeze", &["-f"], &self.mount), "frozen");
    }

    pub(crate) fn thaw(&self) {
        assert!(call("fsfreeze", &["-u"], &self.mount), "thawed");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // It hangs still if its test failed.
        call("fsfreeze", &["-u"], &self.mount);
        let until = Instant::now() + UNMOUNT_DEADLINE;
        while !call("umount", &[], &self.mount) {
            if Instant::now() > until {
                // Gone from here at least, once nobody has it open.
                call("umount", &["-l"], &self.mount);
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // What is left of the image goes with its directory.
        let _ = std::fs::remove_file(&self.image);
    }
}
