//! `filter`: the rows that meet a condition.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::logical_expr::Expr as Planned;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{Expr, visit_expressions};
use retort_engine::{Answers, Batching, Cx, Define, Env, Failure, Operator, Problem, RowBatch, RowOp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::query::{BATCH, DATAFUSION, Mistake, context, steady_expr};

/// Keeps the rows that meet a condition, in their order, with all their columns.
///
/// The condition is an SQL expression over the columns of a row, as DataFusion reads it: `n_tokens > 20 AND answer NOT LIKE '%chapter%'`. What
/// would give another answer tomorrow (`now()`, `random()`), or needs other rows (sub-queries, `count(*)`), is refused.
///
/// The other rows are in the output `rejects`, each with the reason: the condition is false, or null because a value is missing, or it can't be
/// told (`CAST('x' AS int)`). So nothing goes unseen, and another node can read `NODE.rejects`.
///
/// ```yaml
/// good_pairs:
///   op: filter
///   from: pairs
///   with: {where: "length(answer) >= 20 AND question LIKE '%?'"}
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The condition: an SQL expression that is true or false for a row.
    pub r#where: String,
}

/// An expression needs no memory to speak of.
const MAX_BYTES: usize = 1 << 26;

impl Define for Filter {
    const NAME: &'static str = "filter";
    /// DataFusion's major version times a hundred, and our own changes.
    const VERSION: u32 = DATAFUSION * 100 + 1;

    fn build(self, _env: &Env<'_>) -> Result<Operator, Problem> {
        let wrong = |mistake: Mistake| mistake.in_field("where");
        let context = context(MAX_BYTES).map_err(|error| wrong(Mistake::of(&error)))?;
        let reads = columns(&self.r#where, &context).map_err(wrong)?;
        Ok(Operator::Rows(Box::new(Condition { text: self.r#where, reads, context })))
    }
}

/// The columns that a condition names, in the order in which it names them.
fn columns(text: &str, context: &SessionContext) -> Result<Vec<String>, Mistake> {
    if text.trim().is_empty() {
        return Err(Mistake::new("no condition").hint("such as `n_tokens > 20`"));
    }
    let state = context.state();
    let dialect = state.config_options().sql_parser.dialect;
    let parsed = state.sql_to_expr(text, &dialect).map_err(|error| Mistake::of(&error))?;
    let mut names: Vec<String> = Vec::new();
    let ended = visit_expressions(&parsed, |expr| {
        let name = match expr {
            Expr::Identifier(name) => name,
            Expr::CompoundIdentifier(names) => &names[0],
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => return ControlFlow::Break(()),
            _ => return ControlFlow::Continue(()),
        };
        if !names.contains(&name.value) {
            names.push(name.value.clone());
        }
        ControlFlow::Continue(())
    });
    if ended.is_break() {
        return Err(
            Mistake::new("a condition looks at one row, so it has no `SELECT`").hint("the operator `sql` joins tables")
        );
    }
    if names.is_empty() {
        return Err(Mistake::new("the condition names no column").hint("such as `n_tokens > 20`"));
    }
    Ok(names)
}

struct Condition {
    text: String,
    reads: Vec<String>,
    context: SessionContext,
}

impl Condition {
    /// The condition over these columns.
    fn on(&self, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>, Mistake> {
        let of = |error: DataFusionError| Mistake::of(&error);
        let columns = DFSchema::try_from(schema.clone()).map_err(of)?;
        let expr = self.context.parse_sql_expr(&self.text, &columns).map_err(of)?;
        steady_expr(&expr)?;
        let of_many = |expr: &Planned| matches!(expr, Planned::AggregateFunction(_) | Planned::WindowFunction(_));
        if expr.exists(|expr| Ok(of_many(expr))).map_err(of)? {
            let message = "a condition looks at one row, so it counts and compares no others";
            return Err(Mistake::new(message).hint("the operator `sql` groups rows"));
        }
        let expr = self.context.create_physical_expr(expr, &columns).map_err(of)?;
        match expr.data_type(schema).map_err(of)? {
            DataType::Boolean => Ok(expr),
            other => {
                let message = format!("the condition is {}, neither true nor false", other.to_string().to_lowercase());
                Err(Mistake::new(message).hint("compare it with something: `… > 0`, `… = 'x'`, `… IS NOT NULL`"))
            }
        }
    }

    fn refusal(&self, verdict: &Verdict) -> String {
        match verdict {
            Verdict::True => unreachable!("what is true is kept"),
            Verdict::False => format!("false: {}", self.text.trim()),
            Verdict::Null => format!("null: {}", self.text.trim()),
            Verdict::Error(error) => format!("failed: {error}"),
        }
    }
}

/// What a condition says of a row.
enum Verdict {
    True,
    False,
    /// A value that it needs is missing.
    Null,
    /// It can't be told.
    Error(String),
}

/// The verdicts of all rows. Where the rows together fail, each is asked by itself, so that none suffers for its neighbours.
fn verdicts(condition: &dyn PhysicalExpr, batch: &RecordBatch) -> Vec<Verdict> {
    match evaluated(condition, batch) {
        Ok(values) => values.iter().map(|value| value.map_or(Verdict::Null, Verdict::of)).collect(),
        Err(error) if batch.num_rows() == 1 => vec![Verdict::Error(error.message)],
        Err(_) => (0..batch.num_rows()).flat_map(|row| verdicts(condition, &batch.slice(row, 1))).collect(),
    }
}

impl Verdict {
    fn of(value: bool) -> Self {
        if value { Verdict::True } else { Verdict::False }
    }
}

fn evaluated(condition: &dyn PhysicalExpr, batch: &RecordBatch) -> Result<BooleanArray, Mistake> {
    let of = |error: DataFusionError| Mistake::of(&error);
    let values = condition.evaluate(batch).and_then(|value| value.into_array(batch.num_rows())).map_err(of)?;
    Ok(values.as_boolean().clone())
}

impl RowOp for Condition {
    fn reads(&self) -> Vec<String> {
        self.reads.clone()
    }

    fn adds(&self, reads: &Schema) -> Result<SchemaRef, Problem> {
        self.on(reads).map_err(|mistake| mistake.in_field("where"))?;
        Ok(Arc::new(Schema::empty()))
    }

    fn batching(&self) -> Batching {
        Batching { rows: BATCH, parallel: true }
    }

    fn apply(&self, rows: &RowBatch, out: &Answers<'_>, _cx: &Cx<'_>) -> Result<(), Failure> {
        let condition = self.on(&rows.batch.schema()).map_err(Failure::op)?;
        let kept = rows.batch.slice(0, 1).project(&[]).expect("no column is always there");
        for (row, verdict) in verdicts(condition.as_ref(), &rows.batch).iter().enumerate() {
            match verdict {
                Verdict::True => out.keep(row, kept.clone())?,
                refused => out.reject(row, self.refusal(refused))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
