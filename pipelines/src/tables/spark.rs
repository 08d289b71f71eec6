//! Values over time as a line of blocks, for a terminal.

/// From the least to the most.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// At most `width` blocks: of more values each block is the mean of a stretch of them. Values that are no numbers are left out; without
/// two that differ nothing is to be seen.
pub fn spark(values: &[f64], width: usize) -> Option<String> {
    let values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    let stretch = values.len().div_ceil(width.max(1)).max(1);
    let means: Vec<f64> = values.chunks(stretch).map(|part| part.iter().sum::<f64>() / part.len() as f64).collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let block = |value: f64| BLOCKS[(((value - low) / (high - low) * 7.0).round() as usize).min(7)];
    (high > low).then(|| means.into_iter().map(block).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_blocks_and_many_are_summed_up() {
        assert_eq!(spark(&[3.0, 2.0, 1.0, f64::NAN, 1.5], 10).unwrap(), "█▅▁▃");
        assert_eq!(spark(&[4.0, 4.0, 1.0, 1.0, 4.0], 3).unwrap(), "█▁█");
        assert_eq!(spark(&[1.0, 1.0], 9), None);
        assert_eq!(spark(&[], 9), None);
    }
}
