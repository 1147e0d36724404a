//! `ashlar top`: the cluster, live in the terminal.
//!
//! Owns what its tables say. Does not own the screen and its keys (`screen`), nor figures: OSDs publish them every two
//! seconds while they change.

mod screen;

use super::pool::show::{self, PoolRates};
use super::status::{BETWEEN_LOOKS, Statistics, Status};
use super::{Connection, image, osd};
use crate::metadata::Metadata;
use crate::size;
use anyhow::Result;
use ashlar_core::id::{InodeId, PoolId};
use ashlar_core::map::ClusterMap;
use ashlar_core::osd::ClientCounters;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use screen::{Cell, Outcome, Page, Screen, View};
use std::collections::{BTreeMap, VecDeque};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How soon a key takes effect, at the latest.
const KEY_PERIOD: Duration = Duration::from_millis(100);
const OSDS: &[&str] = &["OSD", "STATE", "HOST", "PGS", "FULL", "READS/s", "WRITES/s", "WRITE p99", "STORE p99"];
const POOLS: &[&str] = &["POOL", "IMAGES", "USED", "READS/s", "WRITES/s", "READ/s", "WRITTEN/s"];
const IMAGES: &[&str] = &["IMAGE", "READS/s", "WRITES/s", "READ/s", "WRITTEN/s"];
/// By what OSDs, pools and images are ordered at first: OSDs by number, the others by writes.
const ORDER: [usize; 3] = [0, 4, 2];

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print all pages as text and end. So it is, too, if the output is no terminal.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Figures of images are published every ten seconds, by each OSD at another moment: rates are those of so many looks,
/// twenty seconds.
const LOOKS_AT_IMAGES: usize = 9;

/// What two looks have in common is what is shown.
struct Look {
    at: Instant,
    statistics: BTreeMap<u32, Statistics>,
    images: BTreeMap<(PoolId, InodeId), ClientCounters>,
}

impl Look {
    async fn take(metadata: &Metadata) -> Result<Look> {
        let (statistics, images) = (metadata.statistics().await?, image::io(metadata).await?);
        Ok(Look { at: Instant::now(), statistics, images })
    }
}

/// The last looks, the newest last; never empty.
struct Looks(VecDeque<Look>);

impl Looks {
    async fn begin(metadata: &Metadata) -> Result<Looks> {
        Ok(Looks(VecDeque::from([Look::take(metadata).await?])))
    }

    /// Looks again, and gives what is to be shown.
    async fn next(&mut self, metadata: &Metadata) -> Result<View> {
        let now = Look::take(metadata).await?;
        let map = metadata.map().await?;
        let (first, last) = (&self.0[0], &self.0[self.0.len() - 1]);
        let status = Status::between(metadata, &last.statistics, &now.statistics).await?;
        let osds = osd::rows(&map).iter().map(|row| osd_line(row, last, &now)).collect();
        let (pools, images) = (pools(&map, last, &now), images(&map, first, &now));
        let pages = [("OSDs", OSDS, osds), ("pools", POOLS, pools), ("images", IMAGES, images)];
        let page = |(title, headings, lines)| Page { title, headings, lines };
        let view = View { status: status.text(), pages: pages.into_iter().map(page).collect() };
        self.0.push_back(now);
        if self.0.len() > LOOKS_AT_IMAGES {
            self.0.pop_front();
        }
        Ok(view)
    }
}

/// Shows the cluster until q is pressed.
pub async fn run(args: Args) -> Result<()> {
    let metadata = args.connection.open().await?;
    let mut looks = Looks::begin(&metadata).await?;
    if args.once || !std::io::stdout().is_terminal() {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        let screen = Screen::new(looks.next(&metadata).await?, &ORDER);
        return args.connection.output().print(&screen.view, |_| screen.text());
    }
    let screen = Screen::new(looks.next(&metadata).await?, &ORDER);
    let mut terminal = ratatui::try_init()?;
    let outcome = live(&metadata, &mut terminal, looks, screen).await;
    ratatui::try_restore()?;
    outcome
}

async fn live(metadata: &Metadata, terminal: &mut DefaultTerminal, mut looks: Looks, mut screen: Screen) -> Result<()> {
    while keys(terminal, &mut screen)? == Outcome::GoesOn {
        match looks.next(metadata).await {
            Ok(view) => screen.view = view,
            // The store may be away for a while; what was seen last stays.
            Err(error) => {
                let seen = screen.view.status.lines().filter(|line| !line.starts_with('!'));
                screen.view.status = format!("! {error:#}\n{}", seen.collect::<Vec<_>>().join("\n"));
            }
        }
    }
    Ok(())
}

/// Shows the screen and does what keys say, until the next look is due.
fn keys(terminal: &mut DefaultTerminal, screen: &mut Screen) -> Result<Outcome> {
    let until = Instant::now() + BETWEEN_LOOKS;
    terminal.draw(|frame| screen.draw(frame))?;
    while Instant::now() < until {
        if !event::poll(KEY_PERIOD)? {
            continue;
        }
        if let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
            && screen.press(key) == Outcome::Ends
        {
            return Ok(Outcome::Ends);
        }
        terminal.draw(|frame| screen.draw(frame))?;
    }
    Ok(Outcome::GoesOn)
}

fn bytes(bytes: f64) -> Cell {
    Cell::number(bytes, size::human(bytes as u64))
}

fn osd_line(row: &osd::Row, before: &Look, now: &Look) -> Vec<Cell> {
    let id = row.id.0;
    let then = before.statistics.get(&id).cloned().unwrap_or_default();
    let is = now.statistics.get(&id).cloned().unwrap_or_default();
    let seconds = is.time_ms.saturating_sub(then.time_ms) as f64 / 1e3;
    let rate =
        |then: u64, now: u64| Cell::rate(if seconds > 0.0 { now.saturating_sub(then) as f64 / seconds } else { 0.0 });
    let micros = |us: u64| match us {
        0 => Cell::number(0.0, "-"),
        us => Cell::number(us as f64, format!("{:.1} ms", us as f64 / 1e3)),
    };
    let full = is.store.used_percent();
    vec![
        Cell::number(f64::from(id), id.to_string()),
        Cell::word(osd::state(row)),
        Cell::word(&row.host),
        Cell::number(row.pgs as f64, format!("{} ({})", row.pgs, row.primary_pgs)),
        full.map_or_else(|| Cell::number(0.0, "-"), |percent| Cell::number(percent as f64, format!("{percent} %"))),
        rate(then.client.read_ops, is.client.read_ops),
        rate(then.client.write_ops, is.client.write_ops),
        micros(is.stages.write.since(&then.stages.write).percentile_us(99)),
        micros(is.stages.store_write.since(&then.stages.store_write).percentile_us(99)),
    ]
}

fn pools(map: &ClusterMap, before: &Look, now: &Look) -> Vec<Vec<Cell>> {
    let line = |(id, pool): (PoolId, &ashlar_core::map::Pool)| {
        let rates = PoolRates::between(&before.statistics, &now.statistics, id);
        let used = show::figures(&now.statistics, id).used_bytes;
        let images = map.images().filter(|(of, _, image)| *of == id && !image.removing).count();
        vec![
            Cell::word(&pool.name),
            Cell::number(images as f64, images.to_string()),
            bytes(used as f64),
            Cell::rate(rates.read_ops),
            Cell::rate(rates.write_ops),
            bytes(rates.read_bytes),
            bytes(rates.write_bytes),
        ]
    };
    map.pools().map(line).collect()
}

fn images(map: &ClusterMap, before: &Look, now: &Look) -> Vec<Vec<Cell>> {
    let seconds = now.at.duration_since(before.at).as_secs_f64().max(0.001);
    let rate = |then: u64, now: u64| now.saturating_sub(then) as f64 / seconds;
    let line = |(id, is): (&(PoolId, InodeId), &ClientCounters)| {
        let (image, pool) = (map.image(id.0, id.1)?, map.pool(id.0)?);
        let then = before.images.get(id).copied().unwrap_or(*is);
        Some(vec![
            Cell::word(format!("{}/{}", pool.name, image.name)),
            Cell::rate(rate(then.read_ops, is.read_ops)),
            Cell::rate(rate(then.write_ops, is.write_ops)),
            bytes(rate(then.read_bytes, is.read_bytes)),
            bytes(rate(then.write_bytes, is.write_bytes)),
        ])
    };
    now.images.iter().filter_map(line).collect()
}
