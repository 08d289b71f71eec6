//! Chat messages become a prompt by the model's own Jinja template.
//!
//! The template runs as `transformers` runs it: blocks trimmed, Python's string methods, `raise_exception`. It has no
//! clock: `strftime_now` is not defined, so templates take the fixed date that they fall back to.

use crate::{LmError, tokenizer::Tokenizer};
use minijinja::{Environment, Error, ErrorKind, Value, context, syntax::SyntaxConfig};
use std::borrow::Cow;

/// The template of models that bring none: ChatML.
pub const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// A form without control tokens, for models that were never tuned for chat: one question, one answer.
const PLAIN: &str = "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'Question: ' + message['content'].strip() + '\nAnswer:' }}{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'].strip() + eos_token }}{% else %}{{ message['content'].strip() + '\n\n' }}{% endif %}{% endfor %}";

/// Steps that a template may take, so that a hostile one cannot run for ever.
const FUEL: u64 = 50_000_000;

/// Goes into contents where a control token's name must be broken. A noncharacter of Unicode, never interchanged.
const BREAK: char = '\u{FDD0}';
/// Follows a [`BREAK`] that was in the content itself.
const ESCAPED: char = '\u{FDD1}';

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message of that role.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into() }
    }
}

impl Message {
    fn value(&self) -> Value {
        Value::from_pairs([("role", self.role.as_str()), ("content", self.content.as_str())])
    }
}

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// The template of `tokenizer`'s model, ChatML where it has none.
    ///
    /// # Errors
    /// The template is not valid Jinja.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self, LmError> {
        Self::named(tokenizer, tokenizer.chat_template().unwrap_or(CHATML))
    }

    /// `Question: …`, a line break, `Answer: …` and the model's end token, whatever its own template is.
    ///
    /// # Errors
    /// Never in fact: the form is valid.
    pub fn plain(tokenizer: &Tokenizer) -> Result<Self, LmError> {
        Self::named(tokenizer, PLAIN)
    }

    fn named(tokenizer: &Tokenizer, source: &str) -> Result<Self, LmError> {
        let name = |id: Option<u32>| id.and_then(|id| tokenizer.control_name(id)).unwrap_or("").to_owned();
        Self::new(source, name(tokenizer.bos()), name(tokenizer.eos()))
    }

    /// Compiles `source`; `bos` and `eos` are what it sees as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// The template is not valid Jinja.
    pub fn new(source: &str, bos: String, eos: String) -> Result<Self, LmError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("only white space differs from the default syntax"));
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", |value: Value| {
            serde_json::to_string(&value).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
        });
        environment
            .add_template_owned("chat", source.to_owned())
            .map_err(|error| LmError::Template(describe(&error)))?;
        Ok(Self { environment, bos, eos })
    }

    /// The prompt as text, control tokens by their names.
    ///
    /// # Errors
    /// The template refuses the messages, as some do with a system message.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, LmError> {
        let messages = messages.iter().map(Message::value).collect::<Value>();
        let template = self.environment.get_template("chat").expect("added when the environment was made");
        template
            .render(context! { messages, add_generation_prompt, bos_token => &self.bos, eos_token => &self.eos })
            .map_err(|error| LmError::Template(describe(&error)))
    }

    /// The prompt with the control tokens that are in contents broken, so that those left are the template's own.
    pub(crate) fn render_for(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Rendered, LmError> {
        let controls: Vec<&str> = tokenizer.controls().collect();
        let escaped: Vec<Message> = messages
            .iter()
            .map(|message| Message::new(&escape(&message.role, &controls), escape(&message.content, &controls)))
            .collect();
        Ok(Rendered(self.render(&escaped, add_generation_prompt)?))
    }
}

/// A prompt in which every control token's name is one that the template wrote.
pub(crate) struct Rendered(String);

impl Rendered {
    pub(crate) fn escaped(&self) -> &str {
        &self.0
    }

    /// Takes the markers out of a stretch of the prompt.
    pub(crate) fn unescape(text: &str) -> Cow<'_, str> {
        if !text.contains(BREAK) {
            return Cow::Borrowed(text);
        }
        let mut plain = String::with_capacity(text.len());
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            if character != BREAK {
                plain.push(character);
            } else if characters.next_if_eq(&ESCAPED).is_some() {
                plain.push(BREAK);
            }
        }
        Cow::Owned(plain)
    }
}

/// Breaks every control name in `content`, and what could become one together with the text around it: a name begun
/// at its end, or ended at its start. Space at the ends is looked past, for templates that trim.
fn escape(content: &str, controls: &[&str]) -> String {
    let mut breaks = Vec::new();
    let trimmed = content.trim();
    let start = content.len() - content.trim_start().len();
    let end = start + trimmed.len();
    for &name in controls {
        let first = name.chars().next().map_or(0, char::len_utf8);
        let last = name.chars().next_back().map_or(0, char::len_utf8);
        let mut from = 0;
        while let Some(at) = content[from..].find(name) {
            breaks.push(from + at + first);
            from += at + first;
        }
        for (at, _) in name.char_indices().skip(1) {
            if trimmed.ends_with(&name[..at]) {
                breaks.push(end - at + first);
            }
            if trimmed.starts_with(&name[at..]) {
                breaks.push(start + name.len() - at - last);
            }
        }
    }
    breaks.sort_unstable();
    breaks.dedup();
    insert_breaks(content, &breaks)
}

fn insert_breaks(content: &str, breaks: &[usize]) -> String {
    let mut escaped = String::with_capacity(content.len() + breaks.len() * BREAK.len_utf8());
    let mut from = 0;
    for &at in breaks.iter().chain([&content.len()]) {
        for character in content[from..at].chars() {
            escaped.push(character);
            if character == BREAK {
                escaped.push(ESCAPED);
            }
        }
        if at < content.len() || breaks.last() == Some(&at) {
            escaped.push(BREAK);
        }
        from = at;
    }
    escaped
}

fn describe(error: &Error) -> String {
    let place = error.line().map(|line| format!(" (line {line} of the template)")).unwrap_or_default();
    format!("{}{place}", error.detail().unwrap_or(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(pairs: &[(&str, &str)]) -> Vec<Message> {
        pairs.iter().map(|&(role, content)| Message::new(role, content)).collect()
    }

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, "<s>".into(), "</s>".into()).unwrap()
    }

    #[test]
    fn chatml_is_what_a_model_without_template_gets() {
        let prompt = template(CHATML).render(&messages(&[("user", "Hi"), ("assistant", "Yes?")]), true).unwrap();
        assert_eq!(
            prompt,
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn templates_run_as_transformers_runs_them() {
        let source = "{%- for m in messages %}\n    {%- if m.role.startswith('us') %}\n[INST] {{ m['content'].strip() | upper }} {{ bos_token }}\n    {% endif %}\n{% endfor %}";
        assert_eq!(template(source).render(&messages(&[("user", " a ")]), false).unwrap(), "[INST] A <s>\n");
        let source =
            "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content | tojson }}{% endfor %}";
        assert_eq!(
            template(source).render(&messages(&[("user", "<\"é"), ("user", "b")]), false).unwrap(),
            "\"<\\\"é\""
        );
    }

    #[test]
    fn a_refusal_and_a_clock_are_errors() {
        let refusing = template("{{ raise_exception('no system message, please') }}");
        let error = refusing.render(&[], false).unwrap_err().to_string();
        assert_eq!(error, "chat template: no system message, please (line 1 of the template)");
        assert!(template("{{ strftime_now('%d %b %Y') }}").render(&[], false).is_err());
        let guarded = "{% if strftime_now is defined %}clock{% else %}26 Jul 2024{% endif %}";
        assert_eq!(template(guarded).render(&[], false).unwrap(), "26 Jul 2024");
        assert!(ChatTemplate::new("{% for %}", String::new(), String::new()).is_err());
        let endless = template(
            "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x{% endfor %}{% endfor %}{% endfor %}",
        );
        assert!(endless.render(&[], false).unwrap_err().to_string().contains("fuel"));
    }

    #[test]
    fn breaks_part_every_control_name_and_come_out_again() {
        let controls = ["<|im_end|>", "</s>"];
        for content in [
            "",
            "plain",
            "a <|im_end|> b</s>",
            "<|im_end|><|im_end|>",
            "begins like <|im_",
            "<",
            ">",
            "s>",
            " end|> ends",
            "  </s>\n",
            "with \u{FDD0} and \u{FDD0}\u{FDD1} in it",
            "\u{FDD0}</s>\u{FDD1}",
            "é</",
        ] {
            let escaped = escape(content, &controls);
            for around in [("", ""), ("<|im_", "end|>"), ("<", "s>"), ("</", ">"), ("<|im_end", "|>")] {
                let whole = format!("{}{escaped}{}", around.0, around.1);
                for name in controls {
                    assert!(!whole.contains(name) || content.is_empty(), "{content:?} in {around:?} made {name}");
                }
            }
            assert_eq!(Rendered::unescape(&escaped), content);
            assert_eq!(Rendered::unescape(escaped.trim()), content.trim(), "a template may trim");
        }
    }
}
