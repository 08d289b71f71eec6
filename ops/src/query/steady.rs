//! Refuses what would give the same query over the same rows another answer: the clock, chance, and orders that hash tables have.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};

use super::Mistake;

/// Aggregates whose value does not depend on the order in which distinct values come.
const ORDERLESS: &[&str] = &["count", "max", "min"];

/// What in a plan is not steady, if anything.
pub(super) fn steady(plan: &LogicalPlan) -> std::result::Result<(), Mistake> {
    let mut found = Ok(());
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            if found.is_ok() {
                found = steady_expr(expr);
            }
            Ok(TreeNodeRecursion::Continue)
        })
    });
    walked.map_err(|error| Mistake::of(&error)).and(found)
}

/// What in an expression is not steady, if anything.
pub(crate) fn steady_expr(expr: &Expr) -> std::result::Result<(), Mistake> {
    let mut found = Ok(());
    let walked: Result<_> = expr.apply(|expr| {
        if found.is_ok() {
            found = steady_node(expr);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(|error| Mistake::of(&error)).and(found)
}

fn steady_node(expr: &Expr) -> std::result::Result<(), Mistake> {
    match expr {
        Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
            let message = format!("`{}` gives another value each time it is asked", call.func.name());
            Err(Mistake::new(message)
                .hint("an answer must not change by itself: write the value down, as `${params.NAME}`"))
        }
        Expr::AggregateFunction(call)
            if call.params.distinct && call.params.order_by.is_empty() && !ORDERLESS.contains(&call.func.name()) =>
        {
            let name = call.func.name();
            let hint = format!(
                "say an order: `{name}(DISTINCT x ORDER BY x)`, or aggregate over `(SELECT DISTINCT … ORDER BY …)`"
            );
            Err(Mistake::new(format!("`{name}(DISTINCT …)` takes its values in no order")).hint(hint))
        }
        _ => Ok(()),
    }
}
