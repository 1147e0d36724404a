//! Real clients. One that is not installed is skipped, with a line that says so; in CI (`CI=true`) that is a failure.

use crate::memory::{Memory, One};
use ashlar_client::nbd::Server;
use ashlar_core::rng::Rng;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// A server on a unix socket in a folder of its own.
struct Rig {
    folder: PathBuf,
    disk: Memory,
    server: Server<One>,
    tcp: String,
}

impl Rig {
    async fn new(name: &str, size: u64) -> Rig {
        let folder = std::env::temp_dir().join(format!("ashlar-nbd-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let disk = Memory::new(size);
        let mut server = Server::new(One(disk.clone()));
        server.listen_unix(&folder.join("socket")).unwrap();
        let tcp = format!("nbd://{}/demo", server.listen_tcp("127.0.0.1:0").await.unwrap());
        Rig { folder, disk, server, tcp }
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///demo?socket={}", self.path("socket"))
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn random_file(&self, name: &str, len: usize) -> Vec<u8> {
        let mut rng = Rng::new(1);
        let mut bytes: Vec<u8> = (0..len / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
        // A hole and zeroes, which clients treat in their own ways.
        bytes[len / 4..len / 2].fill(0);
        std::fs::write(self.path(name), &bytes).unwrap();
        bytes
    }

    async fn end(self) {
        self.server.shut_down().await;
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// Runs a tool to its end; `None`: it is not installed.
async fn run(tool: &str, arguments: &[&str]) -> Option<String> {
    let installed = std::env::var("PATH").unwrap_or_default().split(':').any(|dir| Path::new(dir).join(tool).exists());
    if !installed {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "{tool} is not installed: apt-get install libnbd-bin qemu-utils fio"
        );
        eprintln!("SKIPPED: {tool} is not installed (apt-get install libnbd-bin qemu-utils fio)");
        return None;
    }
    let output = Command::new(tool).args(arguments).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(120), output).await.expect("the tool hangs").unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?} failed:\n{text}\n{errors}");
    Some(text)
}

#[tokio::test]
async fn nbdinfo_sees_what_the_export_can_do() {
    let rig = Rig::new("info", 3 << 20).await;
    if let Some(text) = run("nbdinfo", &[&rig.uri()]).await {
        for line in [
            "export-size: 3145728",
            "base:allocation",
            "can_fua: true",
            "can_flush: true",
            "can_trim: true",
            "can_zero: true",
            "can_fast_zero: true",
            "can_multi_conn: true",
            "can_df: true",
            "is_read_only: false",
            "block_size_minimum: 1",
            "block_size_preferred: 4096",
            "block_size_maximum: 33554432",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
        let list = format!("nbd+unix://?socket={}", rig.path("socket"));
        assert!(run("nbdinfo", &["--list", &list]).await.unwrap().contains("export=\"demo\""));
        assert_eq!(run("nbdinfo", &["--size", &rig.tcp]).await.unwrap().trim(), "3145728");
    }
    rig.end().await;
}

#[tokio::test]
async fn nbdcopy_and_the_map_agree_with_the_file() {
    let rig = Rig::new("copy", 24 << 20).await;
    let bytes = rig.random_file("in", 24 << 20);
    if run("nbdcopy", &[&rig.path("in"), &rig.uri()]).await.is_some() {
        assert!(rig.disk.bytes() == bytes, "nbdcopy to the export");
        run("nbdcopy", &[&rig.tcp, &rig.path("out")]).await;
        assert!(std::fs::read(rig.path("out")).unwrap() == bytes, "nbdcopy from the export");
        let map = run("nbdinfo", &["--map", "--totals", &rig.uri()]).await.unwrap();
        assert!(map.contains("6291456  25.0%   3 hole,zero"), "{map}");
    }
    rig.end().await;
}

#[tokio::test]
async fn qemu_img_converts_and_compares() {
    let rig = Rig::new("qemu-img", 24 << 20).await;
    rig.random_file("in", 24 << 20);
    let (input, uri) = (rig.path("in"), rig.uri());
    if run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &input, &uri]).await.is_some() {
        run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &input, &uri]).await;
        let map = run("qemu-img", &["map", "--output=json", "-f", "raw", &uri]).await.unwrap();
        assert!(map.contains("\"zero\": true") && map.contains("\"data\": true"), "{map}");
    }
    rig.end().await;
}

#[tokio::test]
async fn qemu_io_writes_off_sectors_zeroes_and_discards() {
    let rig = Rig::new("qemu-io", 8 << 20).await;
    let script = [
        "write -P 0xab 511 1025",
        "write -f -P 0xcd 131071 131074",
        "read -P 0xab 511 1025",
        "read -P 0xcd 131071 131074",
        "read -P 0 0 511",
        "write -z 1000 5000",
        "read -P 0 1000 5000",
        "discard 65536 65536",
        "read -P 0 65536 65535",
        "aio_write -P 1 1M 64k",
        "aio_write -P 2 2M 64k",
        "aio_flush",
        "read -P 2 2M 64k",
        "flush",
    ];
    let mut arguments = vec!["-f", "raw"];
    arguments.extend(script.iter().flat_map(|command| ["-c", *command]));
    let uri = rig.uri();
    arguments.push(&uri);
    if let Some(text) = run("qemu-io", &arguments).await {
        assert!(!text.contains("failed") && !text.contains("error"), "{text}");
    }
    rig.end().await;
}

#[tokio::test]
async fn fio_verifies_what_it_wrote() {
    let rig = Rig::new("fio", 16 << 20).await;
    let uri = format!("--uri={}", rig.uri());
    let arguments = [
        "--name=verify",
        "--ioengine=nbd",
        &uri,
        "--rw=randwrite",
        "--bsrange=512-64k",
        "--size=16m",
        "--iodepth=32",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--do_verify=1",
        "--fsync=64",
        "--randseed=7",
    ];
    if let Some(text) = run("fio", &arguments).await {
        assert!(text.contains("err= 0"), "{text}");
    }
    rig.end().await;
}
