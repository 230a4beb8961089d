//! A file system that is soon full.

use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Completion, Failed};

/// Unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// One of so many kilobytes. Without the right to mount any, why the test is left out, which is no failure anywhere.
    pub fn mount(dir: &Path, kilobytes: u32) -> Result<Result<Self, Completion>, Failed> {
        std::fs::create_dir_all(dir)?;
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={kilobytes}k"), "none"]).arg(dir).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Ok(Self(dir.to_owned()))),
            _ => Ok(Err(Completion::ignored_with("the right to mount a file system"))),
        }
    }

    pub fn grow(&self, kilobytes: u32) -> Result<(), Failed> {
        let options = format!("remount,size={kilobytes}k");
        let grown = Command::new("mount").args(["-o", &options]).arg(&self.0).output()?;
        if grown.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&grown.stderr).into_owned().into()) }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Processes that still use it keep it for as long as they live.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
