//! `ashlar top`: the cluster, live in the terminal.
//!
//! Owns the view and its keys. Does not own figures: OSDs publish them every two seconds while they change.

use super::status::{BETWEEN_LOOKS, ClientFigures, Statistics, Status};
use super::{Connection, image, osd};
use crate::metadata::Metadata;
use crate::size;
use anyhow::Result;
use ashlar_core::id::{InodeId, PoolId};
use ashlar_core::map::ClusterMap;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::Style;
use ratatui::widgets::{Block, Paragraph, Row, Table};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How soon a key takes effect.
const KEY_PERIOD: Duration = Duration::from_millis(100);

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one view as text and end: for programs without a terminal.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What two looks have in common is what is shown.
struct Look {
    at: Instant,
    statistics: BTreeMap<u32, Statistics>,
    images: BTreeMap<(PoolId, InodeId), ClientFigures>,
}

impl Look {
    async fn take(metadata: &Metadata) -> Result<Look> {
        let (statistics, images) = (metadata.statistics().await?, image::io(metadata).await?);
        Ok(Look { at: Instant::now(), statistics, images })
    }
}

/// A screen full.
struct View {
    status: String,
    osds: Vec<[String; 9]>,
    images: Vec<[String; 5]>,
}

/// Shows the cluster until q is pressed.
pub async fn run(args: Args) -> Result<()> {
    let metadata = args.connection.open().await?;
    let mut before = Look::take(&metadata).await?;
    if args.once {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        let view = View::between(&metadata, &before, &Look::take(&metadata).await?).await?;
        return args.connection.output().print(&view.status, |_| view.text());
    }
    let mut view = View::between(&metadata, &before, &before).await?;
    let mut terminal = ratatui::try_init()?;
    let outcome = loop {
        if let Err(error) = terminal.draw(|frame| view.draw(frame)) {
            break Err(error.into());
        }
        match ends(BETWEEN_LOOKS) {
            Ok(true) => break Ok(()),
            Ok(false) => {}
            Err(error) => break Err(error.into()),
        }
        let next = async {
            let now = Look::take(&metadata).await?;
            anyhow::Ok((View::between(&metadata, &before, &now).await?, now))
        };
        match next.await {
            Ok((seen, now)) => (view, before) = (seen, now),
            // The store may be away for a while; what was seen last stays.
            Err(error) => view.status = format!("{error:#}\n{}", view.status),
        }
    };
    ratatui::try_restore()?;
    outcome
}

/// Waits; true if the view is to end.
fn ends(wait: Duration) -> std::io::Result<bool> {
    let until = Instant::now() + wait;
    while Instant::now() < until {
        if event::poll(KEY_PERIOD)?
            && let Event::Key(key) = event::read()?
        {
            let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

impl View {
    async fn between(metadata: &Metadata, before: &Look, now: &Look) -> Result<View> {
        let map = metadata.map().await?;
        let status = Status::between(metadata, &before.statistics, &now.statistics).await?;
        let osds = osd::rows(&map).iter().map(|row| osd_line(row, before, now)).collect();
        Ok(View { status: status.text(), osds, images: image_lines(&map, before, now) })
    }

    const OSDS: [&'static str; 9] =
        ["OSD", "STATE", "HOST", "PGS", "FULL", "READS/s", "WRITES/s", "WRITE p99", "STORE p99"];
    const IMAGES: [&'static str; 5] = ["IMAGE", "READS/s", "WRITES/s", "READ/s", "WRITTEN/s"];

    fn draw(&self, frame: &mut Frame<'_>) {
        let lines = |count: usize| Constraint::Length(u16::try_from(count + 2).unwrap_or(u16::MAX));
        let parts = [lines(self.status.lines().count()), lines(self.osds.len() + 1), Constraint::Fill(1)];
        let [top, middle, bottom] = Layout::vertical(parts).areas(frame.area());
        let status = Paragraph::new(self.status.as_str());
        frame.render_widget(status.block(Block::bordered().title(" cluster: q ends ")), top);
        frame.render_widget(table(&View::OSDS, &self.osds, " OSDs "), middle);
        frame.render_widget(table(&View::IMAGES, &self.images, " images, busiest first "), bottom);
    }

    fn text(&self) -> String {
        let mut osds = crate::output::table(View::OSDS);
        osds.add_rows(&self.osds);
        let mut images = crate::output::table(View::IMAGES);
        images.add_rows(&self.images);
        format!("{}\n{osds}\n\n{images}", self.status)
    }
}

fn table<'a, const N: usize>(headings: &[&'static str; N], lines: &'a [[String; N]], title: &'static str) -> Table<'a> {
    let rows = lines.iter().map(|line| Row::new(line.iter().map(String::as_str)));
    let widths = [Constraint::Fill(1); N];
    let header = Row::new(*headings).style(Style::new().bold());
    Table::new(rows, widths).header(header).block(Block::bordered().title(title))
}

fn osd_line(row: &osd::Row, before: &Look, now: &Look) -> [String; 9] {
    let id = row.id.0;
    let then = before.statistics.get(&id).cloned().unwrap_or_default();
    let is = now.statistics.get(&id).cloned().unwrap_or_default();
    let seconds = is.time_ms.saturating_sub(then.time_ms) as f64 / 1e3;
    let rate = |then: u64, now: u64| match seconds > 0.0 {
        true => format!("{:.0}", now.saturating_sub(then) as f64 / seconds),
        false => "0".into(),
    };
    let micros = |us: u64| if us == 0 { "-".into() } else { format!("{:.1} ms", us as f64 / 1e3) };
    let used = is.store.total_bytes.saturating_sub(is.store.free_bytes) * 100;
    [
        id.to_string(),
        osd::state(row),
        row.host.clone(),
        format!("{} ({})", row.pgs, row.primary_pgs),
        used.checked_div(is.store.total_bytes).map_or_else(|| "-".into(), |percent| format!("{percent} %")),
        rate(then.client.read_ops, is.client.read_ops),
        rate(then.client.write_ops, is.client.write_ops),
        micros(is.stages.write.since(&then.stages.write).percentile_us(99)),
        micros(is.stages.store_write.since(&then.stages.store_write).percentile_us(99)),
    ]
}

fn image_lines(map: &ClusterMap, before: &Look, now: &Look) -> Vec<[String; 5]> {
    let seconds = now.at.duration_since(before.at).as_secs_f64().max(0.001);
    let rate = |then: u64, now: u64| now.saturating_sub(then) as f64 / seconds;
    let mut lines: Vec<(f64, [String; 5])> = Vec::new();
    for (id, is) in &now.images {
        let (Some(image), Some(pool)) = (map.image(id.0, id.1), map.pool(id.0)) else { continue };
        let then = before.images.get(id).copied().unwrap_or(*is);
        let (reads, writes) = (rate(then.read_ops, is.read_ops), rate(then.write_ops, is.write_ops));
        let bytes = |then: u64, now: u64| size::human(rate(then, now) as u64);
        let (read, written) = (bytes(then.read_bytes, is.read_bytes), bytes(then.write_bytes, is.write_bytes));
        let name = format!("{}/{}", pool.name, image.name);
        lines.push((reads + writes, [name, format!("{reads:.0}"), format!("{writes:.0}"), read, written]));
    }
    lines.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    lines.into_iter().map(|(_, line)| line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    #[test]
    fn a_view_shows_all_its_parts() {
        let line = |first: &str| std::array::from_fn(|n| if n == 0 { first.to_string() } else { n.to_string() });
        let (osds, images) = (vec![line("osd-7")], vec![std::array::from_fn(|n| format!("vms/a{n}"))]);
        let view = View { status: "cluster x\nosds 1 of 1 up\n".into(), osds, images };
        let mut terminal = Terminal::new(TestBackend::new(100, 20)).expect("a screen of memory");
        terminal.draw(|frame| view.draw(frame)).expect("it is large enough");
        let screen = terminal.backend().to_string();
        for part in ["osds 1 of 1 up", "osd-7", "STORE p99", "vms/a0", "busiest first"] {
            assert!(screen.contains(part), "{part} in\n{screen}");
            assert!(part == "busiest first" || view.text().contains(part), "{part}");
        }
    }
}
