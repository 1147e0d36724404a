//! The screen of `ashlar top`: the cluster's state above, one page of a table below, and what keys do to it.
//!
//! Owns what is shown of the tables: which page, in which order, from which line on. Does not own what is in them.

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::Style;
use ratatui::widgets::{Block, Paragraph, Row, Table};
use serde::Serialize;
use std::cmp::Ordering;

/// What the keys do.
const KEYS: &str = " q ends  tab or 1 2 3: page  < >: order by column  r: reverse  arrows, page up, page down: lines ";
/// Lines that a page key moves.
const PAGE_LINES: usize = 10;

/// A field of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// What is shown.
    pub text: String,
    /// What it counts for in the order; texts have none.
    pub number: Option<f64>,
}

impl Cell {
    /// A word.
    pub fn word(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), number: None }
    }

    /// A number, and how it is shown.
    pub fn number(number: f64, text: impl Into<String>) -> Cell {
        Cell { text: text.into(), number: Some(number) }
    }

    /// So many a second.
    pub fn rate(rate: f64) -> Cell {
        Cell::number(rate, format!("{rate:.0}"))
    }
}

/// A table.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    /// Its name.
    pub title: &'static str,
    /// Names of its columns.
    pub headings: &'static [&'static str],
    /// Its lines, each with as many fields as there are columns.
    pub lines: Vec<Vec<Cell>>,
}

/// All that is shown at one time.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// The cluster's state.
    pub status: String,
    /// The tables.
    pub pages: Vec<Page>,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
struct Look {
    column: usize,
    is_descending: bool,
    first: usize,
}

/// What a key does to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more than to the screen.
    GoesOn,
    /// It ends.
    Ends,
}

/// What is shown, and how it is looked at.
#[derive(Clone, Debug)]
pub struct Screen {
    /// What is shown.
    pub view: View,
    page: usize,
    looks: Vec<Look>,
}

impl Screen {
    /// The first page, each page in the order of a column, the largest first where those are numbers.
    pub fn new(view: View, columns: &[usize]) -> Screen {
        let look = |column: &usize| Look { column: *column, is_descending: *column > 0, first: 0 };
        Screen { looks: columns.iter().map(look).collect(), view, page: 0 }
    }

    /// Does what a key says.
    pub fn press(&mut self, key: KeyEvent) -> Outcome {
        let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
            return Outcome::Ends;
        }
        let pages = self.view.pages.len();
        let page = &self.view.pages[self.page];
        let (columns, last) = (page.headings.len(), page.lines.len().saturating_sub(1));
        let look = &mut self.looks[self.page];
        match key.code {
            KeyCode::Tab => self.page = (self.page + 1) % pages,
            KeyCode::BackTab => self.page = (self.page + pages - 1) % pages,
            KeyCode::Char(digit @ '1'..='9') => self.page = (digit as usize - '1' as usize).min(pages - 1),
            KeyCode::Char('>') | KeyCode::Right => look.column = (look.column + 1) % columns,
            KeyCode::Char('<') | KeyCode::Left => look.column = (look.column + columns - 1) % columns,
            KeyCode::Char('r') => look.is_descending = !look.is_descending,
            KeyCode::Down => look.first = (look.first + 1).min(last),
            KeyCode::PageDown => look.first = (look.first + PAGE_LINES).min(last),
            KeyCode::Up => look.first = look.first.saturating_sub(1),
            KeyCode::PageUp => look.first = look.first.saturating_sub(PAGE_LINES),
            KeyCode::Home => look.first = 0,
            KeyCode::End => look.first = last,
            _ => {}
        }
        Outcome::GoesOn
    }

    /// Draws it.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let status = u16::try_from(self.view.status.lines().count() + 2).unwrap_or(u16::MAX);
        // Of a long list of troubles the table leaves the first lines.
        let parts = [Constraint::Max(status), Constraint::Min(5)];
        let [top, bottom] = Layout::vertical(parts).areas(frame.area());
        let text = Paragraph::new(self.view.status.as_str());
        frame.render_widget(text.block(Block::bordered().title(" cluster ").title_bottom(KEYS)), top);
        frame.render_widget(self.table(), bottom);
    }

    fn table(&self) -> Table<'_> {
        let (page, look) = (&self.view.pages[self.page], self.looks[self.page]);
        let lines = self.ordered(self.page);
        let rows = lines.into_iter().skip(look.first.min(page.lines.len().saturating_sub(1)));
        let rows = rows.map(|line| Row::new(line.iter().map(|cell| cell.text.as_str())));
        let arrow = if look.is_descending { "v" } else { "^" };
        let heading = |(place, name): (usize, &&str)| match place == look.column {
            true => format!("{name} {arrow}"),
            false => (*name).to_string(),
        };
        let header = Row::new(page.headings.iter().enumerate().map(heading)).style(Style::new().bold());
        let widths = page.headings.iter().map(|_| Constraint::Fill(1));
        Table::new(rows, widths).header(header).block(Block::bordered().title(self.titles()))
    }

    /// All pages by number, the present one in brackets.
    fn titles(&self) -> String {
        let title = |(place, page): (usize, &Page)| {
            let text = format!("{} {} ({})", place + 1, page.title, page.lines.len());
            if place == self.page { format!("[{text}]") } else { format!(" {text} ") }
        };
        self.view.pages.iter().enumerate().map(title).collect()
    }

    fn ordered(&self, page: usize) -> Vec<&Vec<Cell>> {
        let look = self.looks[page];
        let mut lines: Vec<_> = self.view.pages[page].lines.iter().collect();
        lines.sort_by(|a, b| {
            let order = compare(&a[look.column], &b[look.column]);
            if look.is_descending { order.reverse() } else { order }
        });
        lines
    }

    /// All pages, one after the other, for programs without a terminal.
    pub fn text(&self) -> String {
        let page = |place: usize| {
            let page = &self.view.pages[place];
            let mut table = crate::output::table_of(page.headings);
            for line in self.ordered(place) {
                table.add_row(line.iter().map(|cell| &cell.text));
            }
            format!("\n{}\n{table}\n", page.title)
        };
        let pages: String = (0..self.view.pages.len()).map(page).collect();
        format!("{}{pages}", self.view.status)
    }
}

fn compare(a: &Cell, b: &Cell) -> Ordering {
    match (a.number, b.number) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => a.text.cmp(&b.text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen() -> Screen {
        let line = |name: &str, rate: f64| vec![Cell::word(name), Cell::rate(rate)];
        let pools = Page { title: "pools", headings: &["POOL", "WRITES/s"], lines: vec![line("vms", 1.0)] };
        let lines = vec![line("b", 3.0), line("a", 20.0), line("c", 100.0)];
        let images = Page { title: "images", headings: &["IMAGE", "WRITES/s"], lines };
        let view = View { status: "cluster x\nosds 1 of 1 up\n".into(), pages: vec![pools, images] };
        Screen::new(view, &[0, 1])
    }

    fn shown(screen: &Screen) -> String {
        let mut terminal = Terminal::new(TestBackend::new(110, 14)).expect("a screen of memory");
        terminal.draw(|frame| screen.draw(frame)).expect("it is large enough");
        terminal.backend().to_string()
    }

    fn order(screen: &Screen) -> Vec<&str> {
        screen.ordered(1).into_iter().map(|line| line[0].text.as_str()).collect()
    }

    fn press(screen: &mut Screen, code: KeyCode) -> Outcome {
        screen.press(KeyEvent::from(code))
    }

    #[test]
    fn keys_choose_the_page_the_order_and_the_lines() {
        let mut screen = screen();
        for part in ["osds 1 of 1 up", "[1 pools (1)]", "vms", "q ends"] {
            assert!(shown(&screen).contains(part), "{part} in\n{}", shown(&screen));
        }
        assert!(!shown(&screen).contains("100"), "another page's lines");
        assert_eq!(press(&mut screen, KeyCode::Tab), Outcome::GoesOn);
        assert!(shown(&screen).contains("WRITES/s v") && order(&screen) == ["c", "a", "b"], "{}", shown(&screen));
        press(&mut screen, KeyCode::Char('r'));
        assert_eq!(order(&screen), ["b", "a", "c"], "numbers are compared as numbers");
        press(&mut screen, KeyCode::Left);
        assert_eq!(order(&screen), ["a", "b", "c"]);
        press(&mut screen, KeyCode::Down);
        assert!(!shown(&screen).contains(" a ") && shown(&screen).contains("100"), "{}", shown(&screen));
        (0..9).for_each(|_| assert_eq!(press(&mut screen, KeyCode::PageDown), Outcome::GoesOn));
        assert!(shown(&screen).contains("100"), "the last line stays");
        press(&mut screen, KeyCode::Char('1'));
        assert!(shown(&screen).contains("vms"));
        assert_eq!(press(&mut screen, KeyCode::Char('q')), Outcome::Ends);
        assert_eq!(screen.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Outcome::Ends);
    }

    #[test]
    fn without_a_terminal_all_pages_are_printed() {
        let text = screen().text();
        for part in ["osds 1 of 1 up", "pools\n", "vms", "images\n", "IMAGE", "100"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
