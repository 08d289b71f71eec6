//! Where nodes and arrows lie: layers from top to bottom, after Sugiyama.
//!
//! | step | what holds after it |
//! |---|---|
//! | layers | every node lies below all that feed it, as high as it can |
//! | bends | an arrow over several layers has a bend in each layer between |
//! | order | neighbours lie near the middle of what they are joined to; few arrows cross |
//! | places | no two boxes of a layer touch; a box lies in the middle of its neighbours where there is room |

use super::Picture;

/// Between two boxes of a layer.
const GAP: f64 = 36.0;
/// How often order and places are improved.
const SWEEPS: usize = 12;

/// A box or a bend.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    /// From the top, from 0.
    pub layer: usize,
    /// The middle.
    pub x: f64,
    /// 0 for a bend.
    pub width: f64,
}

/// Where everything lies.
pub(super) struct Layout {
    /// The picture's nodes first, then the bends.
    pub spots: Vec<Spot>,
    /// For each edge of the picture the spots that it passes, both ends included.
    pub paths: Vec<Vec<usize>>,
    /// The spots of each layer from left to right.
    pub layers: Vec<Vec<usize>>,
}

/// Lays a picture out; `width` is that of a node's box.
pub(super) fn layout(picture: &Picture, width: &dyn Fn(usize) -> f64) -> Layout {
    let mut spots: Vec<Spot> =
        (0..picture.nodes.len()).map(|node| Spot { layer: 0, x: 0.0, width: width(node) }).collect();
    // Nodes come after what feeds them, so that one pass is enough.
    for to in 0..picture.nodes.len() {
        let feeds = picture.edges.iter().filter(|edge| edge.to == to);
        spots[to].layer = feeds.map(|edge| spots[edge.from].layer + 1).max().unwrap_or(0);
    }
    let paths = bend(picture, &mut spots);
    let mut layers = vec![Vec::new(); spots.iter().map(|spot| spot.layer + 1).max().unwrap_or(0)];
    for (i, spot) in spots.iter().enumerate() {
        layers[spot.layer].push(i);
    }
    let mut layout = Layout { spots, paths, layers };
    layout.order();
    layout.place();
    layout
}

fn bend(picture: &Picture, spots: &mut Vec<Spot>) -> Vec<Vec<usize>> {
    let mut paths = Vec::new();
    for edge in &picture.edges {
        let mut path = vec![edge.from];
        for layer in spots[edge.from].layer + 1..spots[edge.to].layer {
            path.push(spots.len());
            spots.push(Spot { layer, x: 0.0, width: 0.0 });
        }
        path.push(edge.to);
        paths.push(path);
    }
    paths
}

impl Layout {
    /// The spots that a spot is joined to in the layer above, or below.
    fn joined(&self, spot: usize, above: bool) -> Vec<usize> {
        let pairs = self.paths.iter().flat_map(|path| path.windows(2));
        let other = |pair: &[usize]| {
            let (own, other) = if above { (pair[1], pair[0]) } else { (pair[0], pair[1]) };
            (own == spot).then_some(other)
        };
        pairs.filter_map(other).collect()
    }

    /// Sorts each layer by the mean rank of what its spots are joined to, downwards and upwards in turn; keeps the best.
    fn order(&mut self) {
        let mut best = (self.crossings(), self.layers.clone());
        for sweep in 0..SWEEPS {
            let above = sweep % 2 == 0;
            let n = self.layers.len();
            for step in 1..n {
                let layer = if above { step } else { n - 1 - step };
                let beside = if above { layer - 1 } else { layer + 1 };
                let rank =
                    |spot: usize| self.layers[beside].iter().position(|other| *other == spot).unwrap_or(0) as f64;
                let mut ranked: Vec<(f64, usize)> = Vec::new();
                for (at, spot) in self.layers[layer].iter().enumerate() {
                    let joined = self.joined(*spot, above);
                    ranked.push((mean(joined.into_iter().map(rank)).unwrap_or(at as f64), *spot));
                }
                ranked.sort_by(|one, other| one.0.total_cmp(&other.0));
                self.layers[layer] = ranked.into_iter().map(|(_, spot)| spot).collect();
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.layers.clone());
            }
        }
        self.layers = best.1;
    }

    fn crossings(&self) -> usize {
        let mut rank = vec![0; self.spots.len()];
        for layer in &self.layers {
            layer.iter().enumerate().for_each(|(at, spot)| rank[*spot] = at);
        }
        let pairs: Vec<_> = self.paths.iter().flat_map(|path| path.windows(2)).collect();
        let crossed = |one: &[usize], other: &[usize]| {
            self.spots[one[0]].layer == self.spots[other[0]].layer
                && (rank[one[0]] < rank[other[0]]) != (rank[one[1]] < rank[other[1]])
                && one[0] != other[0]
                && one[1] != other[1]
        };
        let beyond = |i: usize| pairs[i + 1..].iter().filter(|other| crossed(pairs[i], other)).count();
        (0..pairs.len()).map(beyond).sum()
    }

    /// Packs each layer, then draws each spot to the middle of its neighbours, as far as those beside it let it.
    fn place(&mut self) {
        for layer in self.layers.clone() {
            let mut x = 0.0;
            for spot in &layer {
                self.spots[*spot].x = x + self.spots[*spot].width / 2.0;
                x += self.spots[*spot].width + GAP;
            }
            layer.iter().for_each(|spot| self.spots[*spot].x -= (x - GAP) / 2.0);
        }
        for sweep in 0..SWEEPS {
            for at in 0..self.layers.len() {
                let layer = if sweep % 2 == 0 { at } else { self.layers.len() - 1 - at };
                self.pull(layer);
            }
        }
        let left = self.spots.iter().map(|spot| spot.x - spot.width / 2.0).fold(f64::INFINITY, f64::min);
        self.spots.iter_mut().for_each(|spot| spot.x -= left);
    }

    fn pull(&mut self, layer: usize) {
        let order = self.layers[layer].clone();
        let wish = |spot: usize| {
            let joined = self.joined(spot, true).into_iter().chain(self.joined(spot, false));
            mean(joined.map(|other| self.spots[other].x)).unwrap_or(self.spots[spot].x)
        };
        let wishes: Vec<f64> = order.iter().map(|spot| wish(*spot)).collect();
        let apart = |one: usize, other: usize| f64::midpoint(self.spots[one].width, self.spots[other].width) + GAP;
        // Pushed apart from the left and from the right; the middle of both is fair to either side.
        let (mut low, mut high) = (wishes.clone(), wishes.clone());
        for i in 1..order.len() {
            low[i] = low[i].max(low[i - 1] + apart(order[i - 1], order[i]));
        }
        for i in (1..order.len()).rev() {
            high[i - 1] = high[i - 1].min(high[i] - apart(order[i - 1], order[i]));
        }
        for (i, spot) in order.iter().enumerate() {
            self.spots[*spot].x = f64::midpoint(low[i], high[i]);
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}

#[cfg(test)]
mod tests {
    use super::super::tests::picture;
    use super::*;

    #[test]
    fn nodes_lie_below_what_feeds_them() {
        let layout = layout(&picture(), &|_| 100.0);
        assert_eq!(layout.spots[..3].iter().map(|spot| spot.layer).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(layout.paths[3].len(), 3, "the long arrow bends once");
    }

    #[test]
    fn boxes_of_a_layer_do_not_touch() {
        let layout = layout(&picture(), &|node| 80.0 + 10.0 * node as f64);
        for layer in &layout.layers {
            for pair in layer.windows(2) {
                let (one, other) = (&layout.spots[pair[0]], &layout.spots[pair[1]]);
                assert!(other.x - other.width / 2.0 - (one.x + one.width / 2.0) > GAP - 0.01);
            }
        }
    }
}
