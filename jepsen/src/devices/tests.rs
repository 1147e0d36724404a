//! A device by itself, through its socket: what survives a power loss, and what a liar does.

use super::*;

const BYTES: u64 = 1 << 20;

fn served(name: &str) -> (Scratch, PathBuf, Served) {
    let scratch = Scratch::new(name).expect("a directory");
    let socket = scratch.join("device.sock");
    let served = Served::start(&socket, BYTES, 7).expect("it listens");
    (scratch, socket, served)
}

fn connect(socket: &Path, export: &str) -> Nbd {
    Nbd::connect(socket, export, PATIENCE).expect("it answers")
}

#[test]
fn what_was_flushed_survives_and_the_rest_is_lost() {
    let (_scratch, socket, served) = served("device");
    let mut nbd = connect(&socket, "");
    assert_eq!(nbd.size_bytes(), BYTES);
    nbd.write(4096, &[1; 8192]).expect("written");
    nbd.flush().expect("flushed");
    nbd.write(8192, &[2; 4096]).expect("written");
    assert_eq!(nbd.read(8192, 4096).expect("readable"), [2; 4096]);
    assert!(served.power_loss(Outcome::LoseAll) > 0);
    assert!(nbd.read(0, 4096).is_err(), "the connection is of a cycle that is over");
    let mut nbd = connect(&socket, "");
    assert_eq!(nbd.read(8192, 4096).expect("readable"), [1; 4096]);
    let fua = nbd.perform(crate::nbd::Command::Write, 0, 512, &[3; 512], true);
    fua.expect("written and flushed");
    served.power_loss(Outcome::LoseAll);
    assert_eq!(connect(&socket, "").read(0, 512).expect("readable"), [3; 512]);
}

#[test]
fn nothing_is_carried_out_while_the_power_goes() {
    let (_scratch, socket, served) = served("failing");
    let mut nbd = connect(&socket, "");
    nbd.write(0, &[1; 512]).expect("written");
    served.fail();
    assert!(nbd.write(0, &[2; 512]).is_err() && nbd.flush().is_err());
    served.power_loss(Outcome::KeepAll);
    assert_eq!(connect(&socket, "").read(0, 512).expect("readable"), [1; 512]);
}

#[test]
fn a_liar_loses_what_was_flushed_and_its_canary_tells() {
    for lies in [false, true] {
        let (_scratch, socket, served) = served("liar");
        served.set_lies(Lies { flush: lies, ..Lies::default() });
        let mut nbd = connect(&socket, CANARY);
        assert_eq!(nbd.size_bytes(), CANARY_PAGES * 4096);
        nbd.write(0, &canary(0, 1)).expect("written");
        nbd.flush().expect("answered");
        served.power_loss(Outcome::LoseAll);
        let survived = connect(&socket, CANARY).read(0, 4096).expect("readable") == canary(0, 1);
        assert_eq!(survived, !lies);
    }
}

#[test]
fn errors_stale_reads_rot_and_a_full_device() {
    let (_scratch, socket, served) = served("errors");
    let mut nbd = connect(&socket, "");
    nbd.write(0, &[1; 4096]).expect("written");
    served.set_lies(Lies { stale_read_ppm: 1_000_000, ..Lies::default() });
    nbd.write(0, &[2; 4096]).expect("written");
    assert_eq!(nbd.read(0, 4096).expect("readable"), [1; 4096], "what was there before");
    served.set_lies(Lies { full_after: Some(1), ..Lies::default() });
    assert!(nbd.write(4096, &[2; 4096]).is_err_and(|error| error.to_string().contains("28")));
    nbd.write(0, &[3; 4096]).expect("no new page");
    served.set_lies(Lies::default());
    served.set_faults(DiskFaults { write_error_ppm: 1_000_000, ..DiskFaults::default() });
    assert!(nbd.write(0, &[4; 4096]).is_err_and(|error| error.to_string().contains('5')));
    served.set_faults(DiskFaults::default());
    nbd.write(0, &[5; 4096]).expect("written");
    assert_eq!(served.spoil(1, true), 1);
    let found = nbd.read(0, 4096).expect("readable");
    assert_eq!(found.iter().map(|byte| (byte ^ 5).count_ones()).sum::<u32>(), 1);
    assert_eq!(served.spoil(1, false), 1);
    assert!(nbd.read(0, 4096).is_err());
    served.replace();
    assert_eq!(connect(&socket, "").read(0, 4096).expect("readable"), [0; 4096]);
    assert!(served.counters().writes > 3);
}

#[test]
fn requests_outside_are_refused() {
    let (_scratch, socket, _served) = served("outside");
    let mut nbd = connect(&socket, "");
    assert!(nbd.write(BYTES, &[1; 512]).is_err());
    assert!(nbd.read(BYTES - 512, 1024).is_err());
    assert!(nbd.read(1, 512).is_err());
    assert_eq!(nbd.read(BYTES - 512, 512).expect("the last sector"), [0; 512]);
}
