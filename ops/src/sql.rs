//! `sql`: a query over tables. How it is answered is in `query`.

use arrow::datatypes::SchemaRef;
use retort_cache::TableWriter;
use retort_engine::{Cx, Define, Env, Failure, Input, Inputs, Operator, Problem, SlotSpec, TableOp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::query::{DATAFUSION, Mistake, Select};

/// Answers a `SELECT` over one or more tables: joins them, groups, orders, renames columns.
///
/// `from` names the tables: with `from: {pairs: NODE, docs: NODE}` the query reads `pairs` and `docs`. A single `from: NODE`, or a list whose
/// tables are appended, is the table `input`.
///
/// The SQL is DataFusion's (close to PostgreSQL's). Names of columns are written as they are, capitals and all; quotes (`"chunk id"`) are for names
/// that are no words. The columns that come out are known before anything runs, and a wrong name is a mistake with its place.
///
/// Without `ORDER BY` rows come in an order that depends on the query and the tables alone: rows of one table in its order, groups in the order
/// of their first rows, the parts of a `UNION ALL` that ends the query one after the other, joined rows in the order of the right table. Only `ORDER BY` promises
/// one that another version of Retort keeps. What would give another answer tomorrow (`now()`, `random()`, `uuid()`) is refused,
/// and so is everything that is not a `SELECT`.
///
/// One thread answers, whatever joins, sorts and groups hold must fit into `max_memory_mb`. To keep some rows of one table, `filter`
/// is faster, and `retort trace` follows its rows; the rows of a query depend on whole tables.
///
/// ```yaml
/// long_pairs:
///   op: sql
///   from: {pairs: pairs, documents: documents}
///   with:
///     query: |
///       SELECT pairs.question, pairs.answer, documents.path AS source
///       FROM pairs JOIN documents ON pairs.doc_id = documents.doc_id
///       WHERE length(pairs.answer) > 20
///       ORDER BY source, question
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sql {
    /// The query: one `SELECT`, `WITH … SELECT` too.
    pub query: String,
    /// How much the rows that a join, a sort or a group holds may take, in MiB. More needs more; it changes no answer.
    #[serde(default = "max_memory_mb")]
    #[schemars(range(min = 16))]
    pub max_memory_mb: usize,
}

fn max_memory_mb() -> usize {
    2048
}

/// What an input without a name is called.
const UNNAMED: &str = "input";

impl Define for Sql {
    const NAME: &'static str = "sql";
    /// DataFusion's major version times a hundred, and our own changes: what a function gives is DataFusion's to say.
    const VERSION: u32 = DATAFUSION * 100 + 1;
    const PLACES: &'static [&'static str] = &["max_memory_mb"];

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        if self.max_memory_mb < 16 {
            return Err(Problem::at_field("max_memory_mb", "a query has at least 16 MiB"));
        }
        let select = Select::parse(&self.query).map_err(|mistake| mistake.in_field("query"))?;
        Ok(Operator::Table(Box::new(Query { select, max_bytes: self.max_memory_mb << 20 })))
    }
}

struct Query {
    select: Select,
    max_bytes: usize,
}

impl TableOp for Query {
    fn slots(&self) -> Vec<SlotSpec> {
        Vec::new()
    }

    fn takes_any_input(&self) -> bool {
        true
    }

    fn schemas(&self, inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        let tables = named(inputs)?;
        let columns = self.select.columns(&tables, true).map_err(|mistake| explained(mistake, &tables))?;
        if let Some((unread, _)) = tables.iter().find(|(name, _)| !self.select.tables().contains(name)) {
            let slot = if unread == UNNAMED && inputs.get("from").is_some() {
                "from".into()
            } else {
                format!("from.{unread}")
            };
            let problem = Problem::new("unused-input", slot, format!("the query does not read `{unread}`"));
            return Err(problem.hint("every input makes the node run again when it changes: leave it out"));
        }
        Ok(vec![columns])
    }

    fn run(&self, inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], cx: &Cx<'_>) -> Result<(), Failure> {
        let tables = named(inputs).map_err(|problem| Failure::op(problem.message))?;
        self.select.run(&tables, self.max_bytes, &|| cx.check(), &mut |batch| Ok(out[0].write(batch)?))
    }
}

/// The inputs under the names that the query has for them.
fn named<T: Clone>(inputs: &Inputs<T>) -> Result<Vec<(String, T)>, Problem> {
    if inputs.get("from").is_some() && inputs.get(UNNAMED).is_some() {
        return Err(Problem::new("unknown-input", "from", "`from` and `input` are the same table to a query"));
    }
    let name = |slot: &String| if slot == "from" { UNNAMED.to_string() } else { slot.clone() };
    Ok(inputs.0.iter().map(|(slot, value)| (name(slot), value.clone())).collect())
}

/// A single input has a name that one must know.
fn explained(mut mistake: Mistake, tables: &[(String, SchemaRef)]) -> Problem {
    if mistake.message.starts_with("no table ")
        && let [(only, _)] = tables
        && only == UNNAMED
    {
        let name = mistake.message.split('`').nth(1).unwrap_or_default();
        mistake.hint = Some(format!("a single input is `{UNNAMED}`; `from: {{{name}: NODE}}` gives it a name"));
    }
    mistake.in_field("query")
}
