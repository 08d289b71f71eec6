//! Whether a plan said what a run would do, and a run did what it had to and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use retort_cache::Store;
use retort_engine::{Graph, NodePlan, OutputSummary, Summary, Verdict};

use super::answer::Keyed;
use super::hold::Told;
use super::known::{Duty, Known, Why, differences};
use super::seen::{Seen, holds, same};
use super::world::Run;

/// The plan names what will run, why, and how many rows will be asked.
pub(crate) fn planned(known: &Known, graph: &Graph, key: &BTreeMap<String, Keyed>, plans: &[NodePlan]) -> Told {
    let mut fresh = BTreeSet::new();
    for plan in plans {
        let name = &graph.node(plan.id).name;
        let keyed = &key[name];
        let ready = graph.feeds(plan.id).iter().all(|feed| fresh.contains(feed));
        let said = match &plan.verdict {
            Verdict::Fresh => "fresh".into(),
            Verdict::Stale(reason) => format!("stale, {:?}", Why::of(reason)),
            Verdict::Waiting(changes) => format!("waiting, {:?}", Why::changes(changes)),
        };
        let duty = known.duty(name, keyed, false);
        let expected = match (ready, known.last(name)) {
            (true, _) if duty.runs => format!("stale, {:?}", duty.why),
            (true, _) => "fresh".into(),
            (false, None) => format!("stale, {:?}", Why::First),
            (false, Some(last)) => {
                format!("waiting, {:?}", Why::Changed(differences(&last.op, &keyed.recipe.op)))
            }
        };
        same(&format!("plan of {name}"), &said, &expected)?;
        if ready && !duty.runs {
            fresh.insert(plan.id);
        }
        let to_do = duty.asked.filter(|_| ready && duty.runs && keyed.remembers).map(|asked| asked.len() as u64);
        same(&format!("plan of {name}: rows to do"), &plan.to_do, &to_do)?;
    }
    Ok(())
}

/// The summary counts what happened.
pub(crate) fn summed(run: &Run, seen: &BTreeMap<String, Seen>, summary: &Summary) -> Told {
    let count = |of: &dyn Fn(&Seen) -> bool| seen.values().filter(|seen| of(seen)).count();
    same("nodes that ran", &summary.ran, &count(&|seen| seen.finished.is_some()))?;
    same("nodes that were fresh", &summary.fresh, &count(&|seen| seen.fresh.is_some()))?;
    same("nodes that failed", &summary.failed, &count(&|seen| seen.failed.is_some()))?;
    if run.trouble.is_none() {
        let failed: Vec<_> = seen.values().filter_map(|seen| seen.failed.as_ref()).collect();
        same("failures", &failed, &Vec::new())?;
        same("nodes answered", &(summary.ran + summary.fresh), &seen.len())?;
        holds(!summary.cancelled && summary.skipped == 0, || "something was skipped or cancelled".into())?;
    }
    Ok(())
}

/// Every node did what it had to, and nothing else. What the store knows afterwards is noted down.
pub(crate) fn ran(
    run: &Run,
    known: &mut Known,
    key: &BTreeMap<String, Keyed>,
    seen: &BTreeMap<String, Seen>,
    needed: &[String],
) -> Told {
    let start = known.clone();
    for name in needed {
        let (of, keyed) = (&seen[name], &key[name]);
        let forced = run.force.contains(name);
        let (early, late) = if run.jobs == 1 {
            (known.duty(name, keyed, forced), known.duty(name, keyed, forced))
        } else {
            // Of what other nodes leave in the store, it may find all or nothing.
            let mut others = start.clone();
            for (other, seen) in seen.iter().filter(|(other, _)| *other != name) {
                seen.add_to(&mut others, other, &key[other]);
            }
            (start.duty(name, keyed, forced), others.duty(name, keyed, forced))
        };
        let changed = known.last(name).is_none_or(|last| known.answers.get(&last.id()) != Some(&ids(keyed)));
        did(of, &early, &late, keyed, forced, run.trouble.is_none()).map_err(|told| format!("{name}: {told}"))?;
        if let Some(finished) = &of.finished
            && run.jobs == 1
        {
            same(&format!("{name}: whether its answer changed"), &finished.changed, &changed)?;
        }
        of.add_to(known, name, keyed);
    }
    Ok(())
}

/// A node did what it had to, whether it looked into the store early or late.
fn did(seen: &Seen, early: &Duty, late: &Duty, keyed: &Keyed, forced: bool, whole: bool) -> Told {
    if let Some(outputs) = &seen.fresh {
        holds(!early.runs || !late.runs, || format!("was taken as known, and is not: {:?}", late.why))?;
        outputs_are_keyed(outputs, keyed)?;
    }
    if let Some(why) = &seen.began {
        holds(early.runs, || format!("ran without need, because {why:?}"))?;
        holds(*why == early.why || *why == late.why, || {
            format!("said it ran because\n    {why:?}, but it is because\n    {:?}", late.why)
        })?;
    }
    holds(!whole || seen.fresh.is_some() || seen.finished.is_some(), || "was not answered".into())?;
    let asked: BTreeSet<_> = seen.asked.iter().cloned().collect();
    holds(asked.len() == seen.asked.len(), || format!("a row was asked twice: {:?}", seen.asked))?;
    let may = early.asked.clone().filter(|_| seen.began.is_some()).unwrap_or_default();
    let needless: Vec<_> = asked.difference(&may).collect();
    holds(needless.is_empty(), || format!("rows were asked without need: {needless:?}"))?;
    let Some(finished) = &seen.finished else { return Ok(()) };

    outputs_are_keyed(&finished.outputs, keyed)?;
    match &late.asked {
        Some(must) => {
            let missing: Vec<_> = must.difference(&asked).collect();
            holds(missing.is_empty(), || format!("rows were not asked: {missing:?}"))?;
            same("rows asked, by the event", &finished.asked, &Some(seen.asked.len() as u64))?;
            let rejects = keyed.outputs[1].2.num_rows() as u64;
            same("rejects, by the event", &finished.rejects, &rejects)?;
            let recalled = seen.recalled.unwrap_or(0);
            let (least, most) = if forced { (0, 0) } else { (early.recalled, late.recalled) };
            holds((least..=most).contains(&recalled), || format!("{recalled} rows recalled, not {least} to {most}"))
        }
        None => same("calls of the operator", &seen.calls, &1),
    }
}

fn ids(keyed: &Keyed) -> Vec<retort_cache::ContentId> {
    keyed.outputs.iter().map(|(_, id, _)| *id).collect()
}

fn outputs_are_keyed(outputs: &[OutputSummary], keyed: &Keyed) -> Told {
    let is: Vec<_> = outputs.iter().map(|output| (output.port.clone(), output.content, output.rows)).collect();
    let should_be: Vec<_> =
        keyed.outputs.iter().map(|(port, id, batch)| (port.clone(), *id, batch.num_rows() as u64)).collect();
    same("the answer", &is, &should_be)
}

/// What the store gives back is what the key says, value by value.
pub(crate) fn stored(store: &dyn Store, key: &BTreeMap<String, Keyed>, seen: &BTreeMap<String, Seen>) -> Told {
    for (name, seen) in seen {
        let keyed = &key[name];
        if seen.fresh.is_none() && seen.finished.is_none() {
            continue;
        }
        let last = store.last(&format!("fuzz/{name}")).map_err(|error| format!("{name}: {error}"))?;
        same(&format!("{name}: its newest question"), &last.map(|last| last.recipe), &Some(keyed.recipe.clone()))?;
        if seen.finished.is_none() {
            continue;
        }
        for (port, id, batch) in &keyed.outputs {
            let table = store.open(*id).map_err(|error| format!("{name}.{port}: {error}"))?;
            let read = table.ok_or_else(|| format!("{name}.{port} is not in the store"))?.read();
            same(&format!("{name}.{port} as stored"), &read.map_err(|error| error.to_string())?, batch)?;
        }
    }
    Ok(())
}
