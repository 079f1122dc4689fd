//! Messages and events as sentences, for transcripts and for a failed simulation's last words.

use locus_distribution::{CloseReason, SenderEvent};
use locus_proto::{
    FrameHeader, FrameKind, Message,
    v1::{AuditScope, Plan},
};

/// Returns the message as a sentence; `None` for what comes each second and says nothing new.
pub(crate) fn message(message: &Message) -> Option<String> {
    Some(match message {
        Message::Hello(hello) => match hello.position {
            Some(position) => format!("hello, I am at {position}"),
            None => "hello, I present no table".into(),
        },
        Message::Welcome(welcome) => {
            let plan = match welcome.plan {
                Plan::Continue => "what you lack follows".into(),
                Plan::Reload(reason) => format!("the whole table follows: {reason}"),
            };
            format!("welcome, the log ends at {}; {plan}", welcome.head)
        }
        Message::Rejection(rejection) => format!("go away: {}", rejection.reason),
        Message::Frame(frame) => self::frame(&frame.header),
        Message::SnapshotBegin(begin) => format!(
            "snapshot begins at level {}, {} records",
            begin.position.level, begin.records
        ),
        Message::SnapshotPart(part) => {
            let record = |r: &locus_proto::Change| format!("{}@{}", key(&r.key), r.level);
            let records: Vec<String> = part.records.iter().map(record).collect();
            format!("records {}", shorten(&records))
        }
        Message::SnapshotEnd(end) => format!("snapshot ends at level {}", end.level),
        Message::Heartbeat(_) | Message::Status(_) => return None,
        Message::Register { .. } => "register".into(),
        Message::Registered { .. } => "registered".into(),
        Message::AuditAsk(ask) => {
            let what = match ask.scope {
                AuditScope::Groups => "what are the sums of your groups?".into(),
                AuditScope::Group(group) => format!("what are the sums in group {group}?"),
                AuditScope::Partition(number) => format!("what is in partition {number}?"),
            };
            match ask.doubt {
                Some(at) => format!("at level {} I held something else; {what}", at.level),
                None => what,
            }
        }
        Message::AuditSums(sums) => match sums.group {
            None => format!("sums of my groups at level {}", sums.level),
            Some(group) => format!("sums in group {group} at level {}", sums.level),
        },
        Message::AuditRecords(part) => {
            let record = |r: &locus_proto::Change| format!("{}@{}", key(&r.key), r.level);
            let records: Vec<String> = part.records.iter().map(record).collect();
            let more = if part.last { "" } else { " and more" };
            format!(
                "in partition {} at level {}: {}{more}",
                part.partition,
                part.level,
                shorten(&records)
            )
        }
        Message::AuditRefused(refusal) => format!("no answer: {refusal}"),
        Message::AuditOrder(order) => match order.repair {
            true => "audit your table and repair it".into(),
            false => "audit your table".into(),
        },
        Message::AuditReport(report) => format!(
            "my audit: {}; at level {}, {} partitions {:?}, {} records differed, {} repaired",
            report.verdict,
            report.level,
            report.partitions,
            report.ranges,
            report.differing,
            report.repaired
        ),
        Message::GroupOffer(offer) => format!("the group is at {}", offer.group),
        Message::GroupKey(key) => format!("the group's next key is {}", key.id),
        Message::GroupHeard(heard) => format!("I hear the group, with key {}", heard.key),
        Message::GroupCut(cut) => format!("from datagram {} on by the group", cut.seq),
        Message::GroupEnd(end) => format!("leave the group: {}", end.reason),
        Message::GroupLeft(left) => {
            format!("I left the group at {}: {}", left.position, left.reason)
        }
    })
}

/// Returns what a frame says.
pub(crate) fn frame(header: &FrameHeader) -> String {
    match header.kind {
        FrameKind::Epoch => format!("epoch {} begins at level {}", header.epoch, header.from),
        FrameKind::Changes => format!("changes {} to {}", header.from, header.to),
    }
}

/// Returns the name in the key of an address-of-record.
pub(crate) fn key(key: &locus_proto::Key) -> String {
    String::from_utf8_lossy(&key.as_bytes()[1..]).into_owned()
}

/// Returns a list that a reader can take in at a glance.
pub(crate) fn shorten(items: &[String]) -> String {
    match items {
        [first, .., last] if items.len() > 4 => format!("{first} … {last} ({})", items.len()),
        _ => items.join(" "),
    }
}

/// Returns what the master's side does, where people see it.
pub(crate) fn event(event: &SenderEvent) -> Option<String> {
    match event {
        SenderEvent::ReadLog { .. }
        | SenderEvent::ReadTable { .. }
        | SenderEvent::ReadAudit { .. }
        | SenderEvent::SplitScan { .. }
        | SenderEvent::EndScan { .. }
        | SenderEvent::AuditReported { .. }
        | SenderEvent::NodeUp { .. }
        | SenderEvent::NodeDown {
            reason: CloseReason::Lost,
            ..
        } => None,
        SenderEvent::Close { reason, .. } => Some(format!("closes: {reason}")),
        SenderEvent::Alarm(what) => Some(format!(
            "raises the alarm: {} of {} nodes agree against it at level {}",
            what.nodes, what.of, what.level
        )),
        SenderEvent::PathChanged {
            name,
            from,
            to,
            reason,
            ..
        } => Some(format!(
            "serves {name} by {}, not by {}: {reason}",
            to.as_str(),
            from.as_str()
        )),
        SenderEvent::MulticastLost { name, reason, .. } => Some(format!(
            "raises the alarm: {name} is lost to the group: {reason}"
        )),
        SenderEvent::MulticastBack { name, .. } => Some(format!("has {name} in the group again")),
        SenderEvent::NodeDown { .. } => None,
    }
}
