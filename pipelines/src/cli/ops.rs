//! `retort ops`: the operators, and the manual page of each.

mod markdown;
mod page;

use std::io::Write;

use retort_engine::OpInfo;
use serde_json::{Value, json};

use super::stop::{Ended, Result, Stop};
use super::workplace::width_of_stdout;
use crate::tables::{Column, Grid};

/// A page is no wider, so that it reads well.
const WIDEST: usize = 100;

/// Arguments of `ops`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The operator whose page is shown [default: list all]
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Prints the JSON Schema of the operator's config, or of all
    #[arg(long)]
    json: bool,
    /// Prints the pages as Markdown, as they stand in the guide
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let mut out = std::io::stdout().lock();
    if args.markdown && args.name.is_none() {
        let pages: Vec<_> = ops.iter().map(|op| markdown::page(op.name, &(op.schema)().to_value())).collect();
        out.write_all(pages.join("\n").as_bytes())?;
        return Ok(Ended::DONE);
    }
    let Some(name) = &args.name else {
        if args.json {
            let one = |op: &OpInfo| json!({"name": op.name, "version": op.version, "with": (op.schema)().to_value()});
            writeln!(out, "{}", json!({"operators": ops.iter().map(one).collect::<Vec<_>>()}))?;
        } else {
            out.write_all(list(ops).render(width_of_stdout()).as_bytes())?;
        }
        return Ok(Ended::DONE);
    };
    let Some(op) = ops.iter().find(|op| op.name == name) else {
        let names = ops.iter().map(|op| op.name);
        return Err(Stop::wrong(format!("unknown operator `{name}`")).did_you_mean(
            name,
            names,
            "`retort ops` lists them",
        ));
    };
    let schema = (op.schema)().to_value();
    if args.json {
        writeln!(out, "{}", json!({"name": op.name, "version": op.version, "with": schema}))?;
    } else if args.markdown {
        out.write_all(markdown::page(op.name, &schema).as_bytes())?;
    } else {
        let width = width_of_stdout().unwrap_or(WIDEST).min(WIDEST);
        out.write_all(page::page(op.name, &schema, width).as_bytes())?;
    }
    Ok(Ended::DONE)
}

fn list(ops: &[OpInfo]) -> Grid {
    let mut grid = Grid::new([Column::new("operator", false), Column::new("what it does", false)]);
    for op in ops {
        let schema = (op.schema)().to_value();
        let page = schema.get("description").and_then(Value::as_str).unwrap_or_default();
        grid.push([op.name, &first_sentence(page).replace('\n', " ")]);
    }
    grid
}

fn first_sentence(text: &str) -> &str {
    let paragraph = text.split("\n\n").next().unwrap_or(text);
    let end = paragraph.find(". ").or_else(|| paragraph.find(".\n"));
    end.map_or(paragraph, |end| &paragraph[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_ends_at_its_full_stop() {
        assert_eq!(first_sentence("Cuts text. Then more."), "Cuts text.");
        assert_eq!(first_sentence("Cuts 3.5 documents"), "Cuts 3.5 documents");
        assert_eq!(first_sentence("Cuts\n\nThen. More"), "Cuts");
    }
}
