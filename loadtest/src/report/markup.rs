//! Text inside HTML and XML.

/// The text with what means something in markup escaped, in elements and in quoted attributes;
/// characters that XML does not allow become replacement characters.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(character),
            '\0'..'\u{20}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_leaves_its_element() {
        assert_eq!(
            super::escaped("<a b='\"c\"'>&\u{1}ы"),
            "&lt;a b=&#39;&quot;c&quot;&#39;&gt;&amp;\u{fffd}ы"
        );
    }
}
