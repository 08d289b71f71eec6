//! Messages as templates over a row's columns.

use arrow::array::RecordBatch;
use arrow::json::writer::{JsonArray, WriterBuilder};
use minijinja::value::{Serde, Value};
use minijinja::{Environment, UndefinedBehavior};
use retort_engine::{Failure, Problem};
use retort_lm::template::Message;

use super::{MessageTemplate, filters};

/// The templates, compiled.
pub(super) struct Prompts {
    environment: Environment<'static>,
    roles: Vec<&'static str>,
    columns: Vec<String>,
}

impl Prompts {
    /// Compiles the messages and finds the columns that they name.
    pub(super) fn new(messages: &[MessageTemplate]) -> Result<Self, Problem> {
        check_order(messages)?;
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_formatter(|out, state, value| {
            if value.is_none() { Ok(()) } else { minijinja::escape_formatter(out, state, value) }
        });
        let own: Vec<String> = environment.globals().map(|(name, _)| name.to_owned()).collect();
        let mut columns = Vec::new();
        for (i, message) in messages.iter().enumerate() {
            let (role, source) = message.parts();
            let field = format!("messages[{i}].{role}");
            environment.add_template_owned(i.to_string(), source.to_owned()).map_err(|error| {
                let line = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
                Problem::at_field(&field, format!("not a template{line}: {}", error.detail().unwrap_or("syntax error")))
                    .hint("`{{ text }}` stands for the column `text`")
                    .in_line(error.line())
            })?;
            if let Some((name, line)) = filters::unknown(&environment, source) {
                let problem = Problem::at_field(&field, format!("templates have no filter `{name}`"));
                return Err(problem.did_you_mean(&name, filters::USUAL).in_line(Some(line)));
            }
            let template = environment.get_template(&i.to_string()).expect("added above");
            columns.extend(template.undeclared_variables(false).into_iter().filter(|name| !own.contains(name)));
        }
        columns.sort();
        columns.dedup();
        if columns.is_empty() {
            return Err(Problem::at_field("messages", "no message names a column, so every row would ask the same")
                .hint("`{{ text }}` stands for the column `text`"));
        }
        Ok(Self { environment, roles: messages.iter().map(|message| message.parts().0).collect(), columns })
    }

    /// The columns that the templates name, in order.
    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The conversation of one row; an error is the reason to refuse it.
    pub(super) fn render(&self, row: &Value) -> Result<Vec<Message>, String> {
        let mut messages = Vec::with_capacity(self.roles.len());
        for (i, role) in self.roles.iter().enumerate() {
            let template = self.environment.get_template(&i.to_string()).expect("every message was added");
            let text = template.render(row).map_err(|error| {
                let what = error
                    .detail()
                    .map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
                format!("message {} ({role}) cannot be rendered: {what}", i + 1)
            })?;
            messages.push(Message::new(role, text));
        }
        Ok(messages)
    }
}

impl MessageTemplate {
    fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::System(source) => ("system", source),
            Self::User(source) => ("user", source),
            Self::Assistant(source) => ("assistant", source),
        }
    }
}

fn check_order(messages: &[MessageTemplate]) -> Result<(), Problem> {
    let misplaced = messages.iter().skip(1).position(|message| matches!(message, MessageTemplate::System(_)));
    if let Some(i) = misplaced {
        let field = format!("messages[{}].system", i + 1);
        return Err(Problem::at_field(field, "a `system` message comes first, and only once"));
    }
    if !matches!(messages.last(), Some(MessageTemplate::User(_))) {
        return Err(Problem::at_field("messages", "the last message is the `user`'s: it is what the model answers"));
    }
    Ok(())
}

/// The rows as values for templates: by column name, lists and structs as they are.
pub(super) fn rows(batch: &RecordBatch) -> Result<Vec<Value>, Failure> {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    writer.write(batch).and_then(|()| writer.finish()).map_err(Failure::op)?;
    let bytes = writer.into_inner();
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&bytes).map_err(Failure::op)?;
    Ok(rows.iter().map(|row| Value::from(Serde(row))).collect())
}
