//! What on a page is not its content: navigation, bars, hidden parts. Told by elements, roles, names, and above all by
//! how much of a part's text is links.

use super::tree::{Edge, Element, Node, Tree};
use crate::extract::format::Format;
use crate::extract::reader::{MAX_DEPTH, Unreadable};

/// What lies below a node, in letters and digits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    /// All text.
    pub(super) text: usize,
    /// Text inside links.
    pub(super) linked: usize,
    /// How many links.
    pub(super) links: usize,
    /// Headings of the first three levels.
    pub(super) headings: usize,
    /// Whether a reader never sees it as text.
    pub(super) is_hidden: bool,
}

impl Weight {
    fn is_mostly_linked(self) -> bool {
        self.text > 0 && self.linked * 2 > self.text
    }

    /// Few words, some of them links, and no heading.
    fn is_bar(self) -> bool {
        self.links > 0 && self.headings == 0 && self.text < LONGEST_BAR
    }
}

/// A bar has fewer letters and digits than this.
const LONGEST_BAR: usize = 300;

/// The weight of every element, summed once from the leaves, at the node's place.
pub(super) struct Weights(Vec<Weight>);

impl Weights {
    /// Weighs a tree; refuses one that nests too deeply to walk.
    pub(super) fn of(page: &Tree) -> Result<Self, Unreadable> {
        let mut weights = vec![Weight::default(); page.len()];
        let mut open: Vec<Weight> = vec![Weight::default()];
        let mut links_open = 0_usize;
        let mut hidden_open = 0_usize;
        for edge in page.root().traverse() {
            match edge {
                Edge::Open(node) => {
                    if let Some(text) = node.text().filter(|_| hidden_open == 0) {
                        let letters = letters(text);
                        let weight = open.last_mut().expect("the root stays open");
                        weight.text += letters;
                        weight.linked += if links_open > 0 { letters } else { 0 };
                    } else if let Some(element) = node.element() {
                        let (links, is_hidden) = (usize::from(is_link(element)), is_hidden(element));
                        links_open += links;
                        hidden_open += usize::from(is_hidden);
                        let headings = usize::from(matches!(element.name(), "h1" | "h2" | "h3"));
                        open.push(Weight { links, headings, is_hidden, ..Weight::default() });
                        if open.len() > MAX_DEPTH {
                            return Err(Unreadable::TooDeep(Format::Html));
                        }
                    }
                }
                Edge::Close(node) => {
                    let Some(element) = node.element() else { continue };
                    let weight = open.pop().expect("closes what it opened");
                    links_open -= usize::from(is_link(element));
                    hidden_open -= usize::from(weight.is_hidden);
                    weights[node.index()] = weight;
                    let above = open.last_mut().expect("the root stays open");
                    above.text += weight.text;
                    above.linked += weight.linked;
                    above.links += weight.links;
                    above.headings += weight.headings;
                }
            }
        }
        weights[page.root().index()] = open[0];
        Ok(Self(weights))
    }

    /// The weight of a node; nothing for a text.
    pub(super) fn get(&self, node: Node<'_>) -> Weight {
        self.0[node.index()]
    }

    /// A list or table of links and of nothing else: three or more, and a tenth of other text at most.
    pub(super) fn is_link_list(&self, node: Node<'_>) -> bool {
        let weight = self.get(node);
        weight.links >= 3 && (weight.text - weight.linked) * 10 <= weight.text
    }

    /// Navigation, a page's head or foot bar, a side bar, a table of contents.
    pub(super) fn is_chrome(&self, node: Node<'_>, element: &Element) -> bool {
        let weight = self.get(node);
        match element.name() {
            "nav" => return true,
            "footer" if is_of_page(node) => return weight.text < 1000,
            "header" if is_of_page(node) => return weight.headings == 0 && weight.text < 1000,
            _ => {}
        }
        if matches!(element.attr("role"), Some("navigation" | "search" | "banner" | "contentinfo")) {
            return weight.headings == 0 || weight.linked * 2 > weight.text;
        }
        let mut names = element.classes().chain(element.attr("id"));
        names.any(|name| {
            let name = name.to_ascii_lowercase();
            match name.as_str() {
                "headerlink" | "copiable-anchor" | "copiable-link" | "skip-link" | "skip-nav" | "linenos" => true,
                // A bar says the names of its neighbours beside the links to them.
                "nav" | "navbar" | "navigation" | "nav-panel" | "navheader" | "navfooter" | "breadcrumb"
                | "breadcrumbs" => weight.is_mostly_linked() || weight.is_bar(),
                "footer" | "header" => weight.is_mostly_linked() || weight.is_bar() && is_of_page(node),
                "sphinxsidebar" | "related" | "sidebar" | "toc" | "table-of-contents" | "contents"
                | "shortcontents" | "menu" => weight.is_mostly_linked(),
                _ => false,
            }
        })
    }
}

fn is_link(element: &Element) -> bool {
    element.name() == "a" && element.attr("href").is_some()
}

/// Of the page itself, not of an article or a section in it.
fn is_of_page(node: Node<'_>) -> bool {
    !node.ancestors().any(|above| {
        let element = above.element();
        element.is_some_and(|element| matches!(element.name(), "article" | "section" | "main" | "blockquote"))
    })
}

/// What a reader never sees as text.
fn is_hidden(element: &Element) -> bool {
    let by_name = matches!(
        element.name(),
        "head"
            | "script"
            | "style"
            | "noscript"
            | "template"
            | "iframe"
            | "object"
            | "embed"
            | "applet"
            | "svg"
            | "canvas"
            | "audio"
            | "video"
            | "map"
            | "button"
            | "select"
            | "textarea"
            | "input"
            | "datalist"
    );
    let styled = |style: &str| style.replace(' ', "").to_ascii_lowercase().contains("display:none");
    by_name
        || element.attrs().any(|(name, value)| match name {
            "hidden" => true,
            "aria-hidden" => value == "true",
            "style" => styled(value),
            _ => false,
        })
}

/// Whether a line made of links is navigation: beside its links stand only the words that navigation uses.
///
/// `bare` is the text outside of links, `linked` that of the links.
pub(super) fn is_navigation(bare: &str, linked: &str, links: usize) -> bool {
    links > 0 && only_navigation_words(bare) && (links > 1 || only_navigation_words(linked))
}

/// Whether a line is several links with commas between them and nothing else: under a heading of its own ("See also") it is text.
pub(super) fn is_enumeration(bare: &str, links: usize) -> bool {
    let signs = bare.chars().filter(|char| !char.is_whitespace());
    let commas = signs.clone().filter(|char| *char == ',').count();
    links > 1 && commas + 1 == links && signs.clone().count() - commas <= usize::from(bare.trim_end().ends_with('.'))
}

/// Whether what comes next on a line stands apart from the words before it, as the links of a bar do.
pub(super) fn is_apart(line: &str) -> bool {
    line.trim_end().chars().next_back().is_none_or(|char| "[]|:<>«»·•\0".contains(char))
}

/// Whether a text is as short as a bar's.
pub(super) fn is_short(text: &str) -> bool {
    letters(text) < LONGEST_BAR
}

/// How many letters and digits.
fn letters(text: &str) -> usize {
    if text.is_ascii() {
        return text.bytes().filter(u8::is_ascii_alphanumeric).count();
    }
    text.chars().filter(|char| char.is_alphanumeric()).count()
}

fn only_navigation_words(text: &str) -> bool {
    let words = text.split(|char: char| !char.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).all(|word| {
        matches!(
            word.as_str(),
            "next"
                | "previous"
                | "prev"
                | "up"
                | "top"
                | "home"
                | "back"
                | "forward"
                | "contents"
                | "content"
                | "index"
                | "table"
                | "of"
                | "to"
                | "the"
                | "page"
                | "section"
                | "chapter"
                | "menu"
                | "main"
                | "toc"
                | "n"
                | "p"
                | "u"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a page with these parts before and after a sentence.
    fn left(before: &str, after: &str) -> String {
        let page = format!("<body>{before}<h1>Disks</h1><p>A disk turns.</p>{after}</body>");
        crate::extract::read("a.html", page.as_bytes()).unwrap().text
    }

    #[test]
    fn bars_name_their_neighbours_beside_the_links() {
        let head = "<div class=navheader><table><tr><th>5.2. Disks</th></tr><tr><td><a href=a>Prev</a></td><th>Chapter 5. \
                    Machines of all kinds</th><td><a href=b>Next</a></td></tr></table></div>";
        let crumbs = "<p class=breadcrumb><a href=a>Start</a> &gt; Machines of all kinds, and what turns in them</p>";
        let foot = "<div class=footer><a href=a>Home</a> | Best viewed in four shades of grey.</div>";
        assert_eq!(left(head, foot), "Disks\n\nA disk turns.");
        assert_eq!(left(crumbs, ""), "Disks\n\nA disk turns.");
        let note = "<div class=footer>Names of hosts on these pages are planets.</div>";
        assert_eq!(left("", note), "Disks\n\nA disk turns.\n\nNames of hosts on these pages are planets.");
        let long =
            format!("<div class=header><a href=a>x</a> {}</div>", "A long word on what this is about. ".repeat(12));
        assert!(left(&long, "").contains("what this is about"));
    }

    #[test]
    fn a_bar_below_the_last_rule_is_a_foot() {
        let bar = "[ <a href=a>Start</a> ] [ <a href=b>Glossary</a> ] Last changed when the last ROM was read.";
        let copies = "<div><hr>These pages may be copied. Prev: <a href=a>28</a> Next: <a href=b>30</a></div>";
        assert_eq!(left("", &format!("<hr><p><font>{bar}</font></p>")), "Disks\n\nA disk turns.");
        assert_eq!(left("", copies), "Disks\n\nA disk turns.");
        assert!(left("", &format!("<p>{bar}</p>")).ends_with("Last changed when the last ROM was read."), "no rule");
        assert!(left("", &format!("<hr><p>{bar}</p><p>It turns fast.</p>")).contains("Glossary"), "not the last");
        let words = "<hr><p>They turn as <a href=a>chapter 2</a> and <a href=b>chapter 3</a> say.</p>";
        assert!(left("", words).ends_with("They turn as chapter 2 and chapter 3 say."));
        let one = "<hr><p>Written by: <a href=a>a hand</a></p>";
        assert!(left("", one).ends_with("Written by: a hand"));
        let long = format!("<hr><p>{bar} {}</p>", "A long word on what this is about. ".repeat(12));
        assert!(left("", &long).contains("what this is about"));
    }

    #[test]
    fn links_that_are_listed_under_a_heading_are_text() {
        let see = "<h2>See Also</h2><span><a href=a>GRANT</a>, <a href=b>REVOKE</a>,\n <a href=c>ALTER ROLE</a></span>";
        assert_eq!(left("", see), "Disks\n\nA disk turns.\n\nSee Also\n\nGRANT, REVOKE, ALTER ROLE");
        let bar = "<h2>Pages</h2><p><a href=a>One</a> | <a href=b>Two</a></p>";
        assert_eq!(left("", bar), "Disks\n\nA disk turns.");
        assert!(is_enumeration(" , ,\n.", 3) && !is_enumeration("", 1) && !is_enumeration(", , |", 3));
    }

    #[test]
    fn lines_of_links() {
        assert!(is_navigation("Next: , Previous: , Up:   [][]", "Bundles Strings Top Contents Index", 5));
        assert!(is_navigation("", "Up", 1));
        assert!(is_navigation(" | ", "One Two", 2));
        assert!(!is_navigation("", "The mount command", 1), "a lone link may be a sentence");
        assert!(!is_navigation("See also  and ", "mount fstab", 2));
        assert!(!is_navigation("next", "", 0));
    }
}
