//! A message as a mail's two bodies: plain text, and HTML that is readable on a phone without anything from outside.

use super::message::{Event, Message};
use std::fmt::Write as _;

impl Message {
    /// The plain text.
    pub fn text(&self) -> String {
        let mut parts = vec![self.lead.clone()];
        parts.extend(self.notes.iter().cloned());
        parts.push(self.facts.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("\n"));
        for (heading, lines) in self.lists.iter().filter(|(_, lines)| !lines.is_empty()) {
            parts.push(format!("{heading}:\n{}", lines.iter().map(|l| format!("- {l}")).collect::<Vec<_>>().join("\n")));
        }
        parts.push(format!("Next: {}", self.next));
        parts.extend(self.link.clone());
        parts.push("-- \nHeratio Backup".into());
        parts.join("\n\n") + "\n"
    }

    /// The page. Everything that comes from a job is escaped.
    pub fn html(&self) -> String {
        let colour = match self.event {
            Event::Success => "#1b6e37",
            Event::Warning => "#8a5a00",
            Event::Error => "#b3261e",
        };
        let mut body = format!(
            "<h1 style=\"font-size:20px;color:{colour};margin:0 0 12px\">{}</h1>\n<p>{}</p>\n",
            escape(&self.title),
            escape(&self.lead)
        );
        for note in &self.notes {
            put(&mut body, format_args!("<p>{}</p>\n", escape(note)));
        }
        body.push_str("<table style=\"border-collapse:collapse;width:100%\">\n");
        for (name, value) in &self.facts {
            put(
                &mut body,
                format_args!(
                    "<tr><th style=\"text-align:left;vertical-align:top;padding:4px 12px 4px 0;font-weight:600\">{}</th><td style=\"padding:4px 0;word-break:break-word\">{}</td></tr>\n",
                    escape(name),
                    escape(value)
                ),
            );
        }
        body.push_str("</table>\n");
        for (heading, lines) in self.lists.iter().filter(|(_, lines)| !lines.is_empty()) {
            put(
                &mut body,
                format_args!(
                    "<h2 style=\"font-size:16px;margin:16px 0 4px\">{}</h2>\n<ul style=\"margin:0;padding-left:20px\">\n",
                    escape(heading)
                ),
            );
            for line in lines {
                put(&mut body, format_args!("<li style=\"word-break:break-word\">{}</li>\n", escape(line)));
            }
            body.push_str("</ul>\n");
        }
        put(&mut body, format_args!("<p><strong>Next:</strong> {}</p>\n", escape(&self.next)));
        if let Some(link) = &self.link {
            put(&mut body, format_args!("<p><a href=\"{0}\">{0}</a></p>\n", escape(link)));
        }
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{}</title></head>\n\
             <body style=\"font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;font-size:16px;line-height:1.45;color:#1c1b1f;background:#ffffff;margin:0;padding:16px\">\n\
             <div style=\"max-width:640px;margin:0 auto\">\n{body}<p style=\"color:#5f5f66;font-size:14px\">Heratio Backup</p>\n</div></body></html>\n",
            escape(&self.subject)
        )
    }
}

fn put(body: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    _ = body.write_fmt(text);
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            subject: "Heratio backup FAILED: now".into(),
            title: "Heratio backup FAILED".into(),
            summary: String::new(),
            kind: "backup_failed".into(),
            about: ("backup_job", 1),
            event: Event::Error,
            at: chrono::Utc::now(),
            link: Some("https://h.example/admin/backup".into()),
            lead: "It failed.".into(),
            facts: vec![("Label", "<script>alert('1')</script> & \"more\"".into())],
            lists: vec![("Errors", vec!["table `<b>`".into()]), ("Warnings", Vec::new())],
            next: "look".into(),
            notes: vec!["A note.".into()],
        }
    }

    #[test]
    fn text_holds_everything_and_leaves_out_empty_lists() {
        assert_eq!(
            message().text(),
            "It failed.\n\nA note.\n\nLabel: <script>alert('1')</script> & \"more\"\n\nErrors:\n- table `<b>`\n\nNext: look\n\nhttps://h.example/admin/backup\n\n-- \nHeratio Backup\n"
        );
    }

    #[test]
    fn html_is_escaped() {
        let html = message().html();
        assert!(
            html.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;more&quot;") && html.contains("table `&lt;b&gt;`")
        );
        assert!(!html.contains("<script") && !html.contains("Warnings"));
        assert!(html.contains("<a href=\"https://h.example/admin/backup\">"));
    }
}
