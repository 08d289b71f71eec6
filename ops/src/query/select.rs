//! One `SELECT`: parsed, planned against columns, run over rows.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{MemorySchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlanProperties;
use datafusion::prelude::{SQLOptions, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{Statement as Sql, visit_relations};
use futures::StreamExt;
use retort_engine::{Failure, Input};

use super::mistake::Mistake;
use super::session::{context, stored};
use super::source::{FirstError, empty, full};
use super::steady::steady;

/// A query without mistakes of grammar.
#[derive(Clone, Debug)]
pub struct Select {
    statement: Statement,
    tables: Vec<TableReference>,
}

/// A plan needs no rows, so it needs no memory to speak of.
const FOR_PLANS: usize = 1 << 24;

impl Select {
    /// Reads one `SELECT`; anything else that SQL can say is refused.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let context = context(FOR_PLANS).map_err(|error| Mistake::of(&error))?;
        let state = context.state();
        let dialect = state.config_options().sql_parser.dialect;
        let statement = match state.sql_to_statement(text, &dialect) {
            Ok(statement) => statement,
            Err(DataFusionError::NotImplemented(_)) => {
                return Err(Mistake::new("several statements").hint("a query is one `SELECT`"));
            }
            Err(_) if text.trim().is_empty() => return Err(Mistake::new("no query").hint("`SELECT … FROM …`")),
            Err(error) => return Err(Mistake::of(&error)),
        };
        if !matches!(&statement, Statement::Statement(sql) if matches!(**sql, Sql::Query(_))) {
            let word = text.split_whitespace().next().unwrap_or_default().to_uppercase();
            return Err(
                Mistake::new(format!("`{word}` is no query")).hint("only `SELECT` (or `WITH … SELECT`) is answered")
            );
        }
        let (mut tables, _) = resolve_table_references(&statement, false).map_err(|error| Mistake::of(&error))?;
        tables.retain(|table| !state.table_functions().contains_key(table.table()) || table.schema().is_some());
        Ok(Select { statement, tables })
    }

    /// The tables that it reads, each once: `pairs`, `sets.train`.
    pub fn tables(&self) -> Vec<String> {
        self.tables.iter().map(name).collect()
    }

    /// The first place of a table's name.
    pub fn place_of(&self, table: &str) -> Option<(usize, usize)> {
        let Statement::Statement(statement) = &self.statement else { return None };
        let mut place = None;
        let _ = visit_relations(statement.as_ref(), |relation| {
            let idents: Vec<_> = relation.0.iter().filter_map(|part| part.as_ident()).collect();
            if idents.iter().map(|ident| ident.value.as_str()).collect::<Vec<_>>().join(".") == table {
                place = idents.first().map(|ident| (ident.span.start.line as usize, ident.span.start.column as usize));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        place.filter(|(line, column)| *line > 0 && *column > 0)
    }

    /// The columns that it gives over tables of these columns. With `must_be_steady`, what the clock or chance decide is a mistake.
    pub fn columns(&self, tables: &[(String, SchemaRef)], must_be_steady: bool) -> Result<SchemaRef, Mistake> {
        let of = |error: DataFusionError| Mistake::of(&error);
        let context = context(FOR_PLANS).map_err(of)?;
        for table in &self.tables {
            let wanted = name(table);
            let found = tables.iter().find(|(name, _)| *name == wanted);
            let (_, schema) = found.ok_or_else(|| self.unknown_table(&wanted, tables))?;
            register(&context, table, empty(schema.clone()).map_err(of)?).map_err(of)?;
        }
        let (plan, schema) = on_this_thread(async {
            let plan = self.plan(&context).await.map_err(of)?;
            if must_be_steady {
                steady(&plan)?;
            }
            let schema = stored_columns(&plan)?;
            Ok((plan, schema))
        })?;
        // What the optimiser and the physical plan find wrong is found here too, and not when it runs.
        on_this_thread(async { context.execute_logical_plan(plan).await?.create_physical_plan().await }).map_err(of)?;
        Ok(schema)
    }

    /// Hands over its rows, batch by batch, under the columns that `columns` gave. `go_on` is asked between batches, read ones too.
    pub fn run(
        &self,
        tables: &[(String, Input)],
        max_bytes: usize,
        go_on: &dyn Fn() -> Result<(), Failure>,
        take: &mut dyn FnMut(&RecordBatch) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let failed = FirstError::default();
        let told = on_this_thread(self.answer(tables, max_bytes, &failed, go_on, take));
        // The store's own error, and not the text that DataFusion made of it.
        match failed.lock().expect("no thread panicked").take() {
            Some(error) if told.is_err() => Err(Failure::Store(error)),
            _ => told,
        }
    }

    async fn answer(
        &self,
        tables: &[(String, Input)],
        max_bytes: usize,
        failed: &FirstError,
        go_on: &dyn Fn() -> Result<(), Failure>,
        take: &mut dyn FnMut(&RecordBatch) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let broken = |error: DataFusionError| failure(&error, max_bytes);
        let context = context(max_bytes).map_err(broken)?;
        for table in &self.tables {
            let wanted = name(table);
            let found = tables.iter().find(|(name, _)| *name == wanted);
            let (_, input) = found.ok_or_else(|| Failure::op(format!("no table `{wanted}`")))?;
            register(&context, table, full(input.clone(), failed.clone()).map_err(broken)?).map_err(broken)?;
        }
        let plan = self.plan(&context).await.map_err(broken)?;
        let schema = stored_columns(&plan).map_err(Failure::op)?;
        let plan = context.execute_logical_plan(plan).await.map_err(broken)?;
        let (tasks, plan) = (context.task_ctx(), plan.create_physical_plan().await.map_err(broken)?);
        // The parts of a union one after the other.
        for part in 0..plan.output_partitioning().partition_count() {
            let mut rows = plan.execute(part, tasks.clone()).map_err(broken)?;
            loop {
                let next = poll_fn(|polled| match go_on() {
                    Ok(()) => rows.poll_next_unpin(polled).map(Ok),
                    Err(stop) => std::task::Poll::Ready(Err(stop)),
                });
                let Some(batch) = next.await? else { break };
                take(&as_stored(&batch.map_err(broken)?, &schema).map_err(broken)?)?;
            }
        }
        Ok(())
    }

    async fn plan(&self, context: &SessionContext) -> Result<LogicalPlan, DataFusionError> {
        let plan = context.state().statement_to_plan(self.statement.clone()).await?;
        let only_reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        only_reads.verify_plan(&plan)?;
        Ok(plan)
    }

    fn unknown_table(&self, wanted: &str, tables: &[(String, SchemaRef)]) -> Mistake {
        let names = tables.iter().map(|(name, _)| name.as_str());
        let listed =
            || format!("there are {}", names.clone().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "));
        let mistake = Mistake::new(format!("no table `{wanted}`")).near(wanted, names.clone(), listed);
        Mistake { at: self.place_of(wanted), ..mistake }
    }
}

/// Runs DataFusion's async API to its end: on a runtime of its own, on this thread.
fn on_this_thread<T>(work: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers opens nothing");
    runtime.block_on(work)
}

/// `sets.train` as it is asked for, quoted or not.
fn name(table: &TableReference) -> String {
    let parts = [table.catalog(), table.schema(), Some(table.table())];
    parts.into_iter().flatten().collect::<Vec<_>>().join(".")
}

fn register(
    context: &SessionContext,
    name: &TableReference,
    table: Arc<dyn TableProvider>,
) -> Result<(), DataFusionError> {
    if let Some(schema) = name.schema()
        && let Some(catalog) = context.catalog("datafusion")
        && catalog.schema(schema).is_none()
    {
        catalog.register_schema(schema, Arc::new(MemorySchemaProvider::new()))?;
    }
    context.register_table(name.clone(), table).map(|_| ())
}

/// The columns of a plan as tables have them.
fn stored_columns(plan: &LogicalPlan) -> Result<SchemaRef, Mistake> {
    let mut fields: Vec<arrow::datatypes::Field> = Vec::new();
    for field in plan.schema().fields() {
        let name = field.name();
        if fields.iter().any(|other| other.name() == name) {
            return Err(Mistake::new(format!("two columns are called `{name}`")).hint("name one anew: `… AS NAME`"));
        }
        let Some(kind) = stored(field.data_type()) else {
            let kind = field.data_type();
            let message =
                format!("column `{name}` would be {}: tables have no such values", kind.to_string().to_lowercase());
            return Err(Mistake::new(message).hint("`CAST(… AS text)`, `double` or `bigint` gives what they have"));
        };
        fields.push(arrow::datatypes::Field::new(name, kind, field.is_nullable()));
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn as_stored(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, DataFusionError> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
    let columns = columns.collect::<Result<_, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

fn failure(error: &DataFusionError, max_bytes: usize) -> Failure {
    if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) {
        let bound = max_bytes >> 20;
        return Failure::op(format!(
            "the query needs more than {bound} MiB to join, sort or group; raise `max_memory_mb`, or leave rows and columns out earlier"
        ));
    }
    let mistake = Mistake::of(error);
    Failure::op(match &mistake.hint {
        Some(hint) => format!("{mistake} ({hint})"),
        None => mistake.message,
    })
}
