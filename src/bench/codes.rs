//! `ashlar bench codes`: how fast the arithmetic of erasure codes is on this processor. No cluster is needed.

use crate::output::{self, Output};
use anyhow::Result;
use ashlar_core::ec::{Source, code};
use ashlar_core::rng::Rng;
use serde::Serialize;
use std::time::Instant;

/// Bytes of a chunk.
const CHUNK: usize = 4096;
/// Data and parity chunks, and whether XOR is enough.
const CODES: [(u8, u8, bool); 5] = [(2, 1, true), (2, 1, false), (4, 2, false), (8, 3, false), (8, 4, false)];

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Stripes for each figure.
    #[arg(long, default_value_t = 20_000)]
    rounds: u32,
    #[command(flatten)]
    output: Output,
}

/// A line of the result: of all data bytes of a stripe.
#[derive(Debug, Serialize)]
struct Line {
    code: String,
    encode_us: f64,
    encode_gb_per_s: f64,
    reconstruct_us: f64,
    reconstruct_gb_per_s: f64,
}

/// Measures every code.
pub fn run(args: &Args) -> Result<()> {
    let lines: Vec<Line> = CODES.iter().map(|(data, parity, xor)| measure(*data, *parity, *xor, args.rounds)).collect();
    args.output.print(&lines, |lines| {
        let mut table = output::table(["CODE", "ENCODE", "", "RECONSTRUCT", ""]);
        for line in lines {
            table.add_row([
                line.code.clone(),
                format!("{:.2} us", line.encode_us),
                format!("{:.1} GB/s", line.encode_gb_per_s),
                format!("{:.2} us", line.reconstruct_us),
                format!("{:.1} GB/s", line.reconstruct_gb_per_s),
            ]);
        }
        format!("{table}\na stripe of 4 KiB chunks: all parity from the data; one lost data chunk from the others")
    })
}

fn measure(data: u8, parity: u8, xor: bool, rounds: u32) -> Line {
    let (mut rng, code) = (Rng::new(5), code(data, parity, xor));
    let mut random = || (0..CHUNK).map(|_| rng.next_u64().to_le_bytes()[0]).collect::<Vec<u8>>();
    let chunks: Vec<Vec<u8>> = (0..data).map(|_| random()).collect();
    let mut parities = vec![vec![0; CHUNK]; usize::from(parity)];
    let encode = time(rounds, || {
        for (role, into) in (data..).zip(&mut parities) {
            (0..data).for_each(|chunk| code.add(chunk, &chunks[usize::from(chunk)], role, into));
        }
    });
    let rest = (1..data).map(|chunk| Source { chunk, bytes: &chunks[usize::from(chunk)] });
    let sources: Vec<Source<'_>> = rest.chain([Source { chunk: data, bytes: &parities[0] }]).collect();
    let mut lost = vec![0; CHUNK];
    let reconstruct = time(rounds, || code.reconstruct(&sources, 0, &mut lost));
    let gigabytes = |us: f64| (CHUNK * usize::from(data)) as f64 / us / 1000.0;
    Line {
        code: format!("{} {data}+{parity}", if xor { "xor" } else { "ec" }),
        encode_us: encode,
        encode_gb_per_s: gigabytes(encode),
        reconstruct_us: reconstruct,
        reconstruct_gb_per_s: gigabytes(reconstruct),
    }
}

/// Microseconds of one round.
fn time(rounds: u32, mut round: impl FnMut()) -> f64 {
    let begin = Instant::now();
    (0..rounds).for_each(|_| round());
    begin.elapsed().as_secs_f64() * 1e6 / f64::from(rounds.max(1))
}
