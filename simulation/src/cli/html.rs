//! A timeline to look at: one row a host, time from left to right, faults as bands, and the lines below.

use std::fmt::Write as _;
use std::io::{BufRead as _, Write as _};
use std::path::Path;

use skerry_simulation::scenario::{Fault, Scenario};

use super::files;
use super::one::Result;

const WIDTH: f64 = 1_400.0;
const ROW: f64 = 34.0;
const LEFT: f64 = 90.0;

struct Line {
    ms: f64,
    host: String,
    event: String,
}

/// Writes the timeline of a run from its trace.
pub(super) fn write(path: &Path, trace: &Path, scenario: &Scenario, result: &Result) -> anyhow::Result<()> {
    let lines = lines(trace)?;
    let end = lines.last().map_or(1.0, |line| line.ms).max(1.0);
    let x = |ms: f64| LEFT + ms / end * (WIDTH - LEFT - 10.0);
    let mut svg = String::new();
    let rows = ["FAULT", "broker", "clients", "VIOLATION"];
    let height = ROW * (rows.len() as f64 + 1.0);
    for (index, row) in rows.iter().enumerate() {
        let y = ROW * (index as f64 + 1.0);
        write!(
            svg,
            "<text x='4' y='{:.0}'>{row}</text><line x1='{LEFT}' x2='{WIDTH}' y1='{y}' y2='{y}' class='grid'/>",
            y - 12.0
        )?;
    }
    for second in 0..=(end / 1_000.0) as u32 {
        let at = x(f64::from(second) * 1_000.0);
        write!(
            svg,
            "<line x1='{at:.1}' x2='{at:.1}' y1='0' y2='{height}' class='grid'/><text x='{at:.1}' y='{:.0}' class='tick'>{second}s</text>",
            height - 6.0
        )?;
    }
    for timed in &scenario.faults {
        let (from, to) = (
            timed.at_ms as f64,
            timed.at_ms as f64 + lasts_ms(&timed.fault) as f64,
        );
        write!(
            svg,
            "<rect x='{:.1}' y='4' width='{:.1}' height='26' class='fault'><title>{} ms: {}</title></rect>",
            x(from),
            (x(to.min(end)) - x(from)).max(2.0),
            timed.at_ms,
            escape(&format!("{:?}", timed.fault))
        )?;
    }
    broker_row(&mut svg, &lines, end, &x)?;
    for line in lines
        .iter()
        .filter(|line| line.event.contains("->") && !line.event.starts_with("disk"))
    {
        let class = if line.event.contains("Failed") {
            "bad"
        } else {
            "good"
        };
        write!(
            svg,
            "<rect x='{:.1}' y='{}' width='1.5' height='26' class='{class}'><title>{} {}</title></rect>",
            x(line.ms),
            ROW * 2.0 + 4.0,
            escape(&line.host),
            escape(&shorten(&line.event))
        )?;
    }
    for violation in &result.violations {
        let at = if violation.at == 0 {
            end
        } else {
            violation.at as f64 / 1_000.0
        };
        write!(
            svg,
            "<circle cx='{:.1}' cy='{}' r='7' class='violation'><title>{}: {}</title></circle>",
            x(at),
            ROW * 3.5,
            escape(&violation.check),
            escape(&violation.message)
        )?;
    }
    let mut out = files::create(path)?;
    write!(
        out,
        "<!doctype html><meta charset='utf-8'><title>seed {}</title><style>{STYLE}</style>",
        scenario.seed
    )?;
    write!(
        out,
        "<h1>seed {}: {}</h1>",
        scenario.seed,
        if result.violations.is_empty() {
            "every promise kept"
        } else {
            "a promise broken"
        }
    )?;
    for violation in &result.violations {
        write!(
            out,
            "<p class='broken'><b>{}</b> {}</p>",
            escape(&violation.check),
            escape(&violation.message)
        )?;
    }
    write!(out, "<svg viewBox='0 0 {WIDTH} {height}'>{svg}</svg><table>")?;
    for line in lines
        .iter()
        .filter(|line| !line.event.starts_with("disk ") && !line.event.starts_with("net sent"))
    {
        let class = if line.host == "VIOLATION" {
            "broken"
        } else if line.host == "FAULT" {
            "fault"
        } else {
            ""
        };
        write!(
            out,
            "<tr class='{class}'><td>{:.3}</td><td>{}</td><td>{}</td></tr>",
            line.ms,
            escape(&line.host),
            escape(&shorten(&line.event))
        )?;
    }
    write!(out, "</table>")?;
    out.flush()?;
    Ok(())
}

const STYLE: &str = "body{font:14px system-ui;margin:20px}svg{width:100%;background:#fafafa;border:1px solid #ddd}\
text{font-size:12px;fill:#333}.tick{fill:#999;font-size:10px}.grid{stroke:#e4e4e4}rect.fault{fill:#e8a33d;opacity:.6}\
.up{fill:#4a9d6a}.starting{fill:#b5d6a7}.good{fill:#3b6fb6}.bad{fill:#c9c9c9}.violation{fill:#d0021b}\
table{border-collapse:collapse;font:12px ui-monospace,monospace;margin-top:16px}td{padding:1px 8px;vertical-align:top}\
tr.fault{background:#fdf0dc}.broken{background:#fbdada}";

/// Where the broker serves, from the lines that say so.
fn broker_row(svg: &mut String, lines: &[Line], end: f64, x: &impl Fn(f64) -> f64) -> std::fmt::Result {
    let mut since: Option<(f64, &str)> = None;
    let mut close = |since: &mut Option<(f64, &str)>, until: f64| {
        if let Some((from, class)) = since.take() {
            let (left, width) = (x(from), (x(until) - x(from)).max(1.0));
            let y = ROW + 4.0;
            write!(
                svg,
                "<rect x='{left:.1}' y='{y}' width='{width:.1}' height='26' class='{class}'><title>{from:.0} to {until:.0} ms: {class}</title></rect>"
            )?;
        }
        Ok(())
    };
    for line in lines.iter().filter(|line| line.host == "broker") {
        let next = match line.event.as_str() {
            "starts" => Some("starting"),
            "serves" => Some("up"),
            event
                if event.starts_with("is killed")
                    || event.starts_with("the power goes")
                    || event.starts_with("has stopped") =>
            {
                None
            }
            _ => continue,
        };
        close(&mut since, line.ms)?;
        since = next.map(|class| (line.ms, class));
    }
    close(&mut since, end)
}

fn lines(trace: &Path) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for line in files::open(trace)?.lines() {
        let line = line?;
        let line = line.rsplit_once(" #").map_or(&*line, |(line, _)| line);
        let Some((time, rest)) = line.trim_start_matches('[').split_once(']') else {
            continue;
        };
        let (Ok(ms), Some((host, event))) = (time.trim().parse(), rest.trim_start().split_once(' ')) else {
            continue;
        };
        lines.push(Line {
            ms,
            host: host.to_owned(),
            event: event.trim().to_owned(),
        });
    }
    Ok(lines)
}

fn lasts_ms(fault: &Fault) -> u64 {
    match fault {
        Fault::Kill { down_ms }
        | Fault::PowerCut { down_ms }
        | Fault::DoublePowerCut { down_ms, .. }
        | Fault::Restart { down_ms }
        | Fault::BitRot { down_ms }
        | Fault::Outage { down_ms, .. }
        | Fault::DieIn { down_ms, .. } => *down_ms,
        // How long a rolling restart takes is up to the nodes.
        Fault::ClockJump { .. }
        | Fault::ClockDrift { .. }
        | Fault::QuietRot
        | Fault::RollingRestart { .. } => 0,
        Fault::Swizzle { each_ms } => 2 * *each_ms,
        Fault::CrashLoop {
            times,
            up_ms,
            down_ms,
        } => u64::from(*times) * (up_ms + down_ms),
        Fault::SlowLink { for_ms, .. }
        | Fault::HeldLink { for_ms, .. }
        | Fault::CutLink { for_ms, .. }
        | Fault::FlappingLink { for_ms, .. }
        | Fault::BadConnections { for_ms, .. }
        | Fault::DiskStall { for_ms }
        | Fault::SlowDisk { for_ms, .. }
        | Fault::DiskFull { for_ms, .. }
        | Fault::Isolate { for_ms, .. }
        | Fault::Bridge { for_ms }
        | Fault::Pause { for_ms }
        | Fault::Split { for_ms, .. }
        | Fault::Ring { for_ms }
        | Fault::NoClients { for_ms, .. }
        | Fault::LateLink { for_ms, .. }
        | Fault::ClockStrobe { for_ms, .. }
        | Fault::ClockFreeze { for_ms }
        | Fault::ClockNoise { for_ms, .. }
        | Fault::ClockSwing { for_ms, .. }
        | Fault::ClockWander { for_ms, .. }
        | Fault::SyncFails { for_ms, .. } => *for_ms,
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() > 260 {
        text.chars().take(260).chain("...".chars()).collect()
    } else {
        text.to_owned()
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&#39;")
}
