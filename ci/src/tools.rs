//! The programs that tests use, beside Rust and a C compiler, and how to get them on Debian and its relatives.

use crate::commands;
use anyhow::{Result, bail};
use std::path::Path;

/// A program, how to see that it is there, and the package that brings it.
const TOOLS: &[(&str, &str)] = &[
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("qemu-img", "qemu-utils"),
    ("nbdinfo", "libnbd-bin"),
    ("nbdcopy", "libnbd-bin"),
    ("nbdfuse", "libnbd-bin"),
    ("nbdkit", "nbdkit"),
    ("fio", "fio"),
    ("mke2fs", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("sqlite3", "sqlite3"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("nm", "binutils"),
];

/// Packages of the tools that are not on this machine.
fn missing() -> Vec<&'static str> {
    let mut packages: Vec<_> = TOOLS.iter().filter(|(name, _)| !in_path(name)).map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

fn in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = [Path::new("/usr/sbin"), Path::new("/usr/bin")];
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
        || system.iter().any(|f| f.join(name).is_file())
}

/// Installs what is missing, or says what a person has to install.
pub fn install() -> Result<()> {
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !commands::answers("apt-get", &["--version"]) {
        bail!("the tests need programs that are not on this machine; install what Debian calls: {list}");
    }
    let (program, first): (&str, &[&str]) = match commands::output(commands::program("id").arg("-u"))?.trim() {
        "0" => ("apt-get", &[]),
        _ => ("sudo", &["-n", "apt-get"]),
    };
    let apt = |arguments: &[&str]| {
        let mut command = commands::program(program);
        command.args(first).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let hint = |error: anyhow::Error| error.context(format!("to install them by hand: apt-get install {list}"));
    commands::run("update the package lists", &mut apt(&["-qq", "update"])).map_err(hint)?;
    let mut install = apt(&["-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", "install"]);
    install.args(&packages).stdout(std::process::Stdio::null());
    commands::run(&format!("install {list}"), &mut install).map_err(hint)?;
    match missing() {
        left if left.is_empty() => Ok(()),
        left => bail!("installed, but still not to be found: {}", left.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_machine_has_is_found_and_nonsense_is_not() {
        assert!(in_path("sh"));
        assert!(!in_path("no-such-program-anywhere"));
    }
}
