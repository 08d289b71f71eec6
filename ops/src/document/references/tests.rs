//! What running text refers to, found and not found.

use super::super::Raw;
use super::*;

fn found(raws: &[(u8, &str)]) -> Vec<(String, String, Option<String>)> {
    let raw = |(level, text): &(u8, &str)| {
        let kind = if *level > 0 { Kind::Heading } else { Kind::Paragraph };
        Raw::new(kind, *level, *text)
    };
    let document = Document::assemble(None, raws.iter().map(raw).collect());
    let to = |to: u32| document.text_of(&document.blocks[to as usize]).to_owned();
    document.links.iter().map(|link| (link.label.clone(), link.target.clone(), link.to.map(to))).collect()
}

fn only(raws: &[(u8, &str)]) -> Option<String> {
    let found = found(raws);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].2.clone()
}

#[test]
fn numbers_lead_to_headings_and_captions() {
    let book = [
        (1, "Chapter 4: Disks"),
        (0, "See Chapter 5, section 5.1 and Figs. 5-1 and 5-2; Appendix B or sections 4 and 9."),
        (1, "Chapter 5: Printing"),
        (2, "5.1 Queues"),
        (0, "Figure 5-1. A queue"),
        (1, "Appendix B. Codes"),
    ];
    let seen = found(&book);
    let seen: Vec<_> = seen.iter().map(|(label, target, to)| (&**label, &**target, to.as_deref())).collect();
    assert_eq!(
        seen,
        [
            ("Chapter 5", "chapter 5", Some("Chapter 5: Printing")),
            ("section 5.1", "section 5.1", Some("5.1 Queues")),
            ("Figs. 5-1", "figure 5.1", Some("Figure 5-1. A queue")),
            ("5-2", "figure 5.2", None),
            ("Appendix B", "appendix b", Some("Appendix B. Codes")),
            ("sections 4", "section 4", None),
            ("9", "section 9", None),
        ]
    );
}

#[test]
fn neighbours_are_of_the_same_level() {
    let book = |text| [(1, "Book"), (2, "One"), (3, "Deep"), (0, text), (2, "Two"), (0, "x"), (2, "Three")];
    assert_eq!(only(&book("See the next chapter.")), Some("Two".into()));
    assert_eq!(only(&book("As the previous chapter says.")), None);
    assert_eq!(only(&book("in the following section")), None, "there is no section after this one in its chapter");
    assert_eq!(only(&[(1, "A"), (0, "x"), (1, "B"), (0, "The preceding section did.")]), Some("A".into()));
}

#[test]
fn what_is_meant_elsewhere_or_twice_leads_nowhere() {
    let rfc = [(1, "3 Names"), (0, "Section 3 of RFC 1034 says so.")];
    assert_eq!(only(&rfc), None);
    assert_eq!(only(&[(1, "3 Names"), (0, "Section 3 of this manual says so.")]), Some("3 Names".into()));
    let twice =
        [(1, "One"), (2, "1.1 A"), (1, "Two"), (2, "1.1 A"), (0, "See 1.1, section 1.1."), (1, "Three"), (0, "x")];
    assert_eq!(only(&twice), Some("1.1 A".into()));
    assert_eq!(only(&[(1, "1 A"), (1, "1 B"), (1, "C"), (0, "see chapter 1")]), None);
    assert_eq!(found(&[(1, "A"), (0, "Part of it is in a table that we see here, the section a user needs.")]), []);
}

#[test]
fn headings_in_quotes_are_found() {
    let book = |text| [(1, "3. Adding a Printer"), (0, text)];
    assert_eq!(only(&book("See “Adding a Printer,” above.")), Some("3. Adding a Printer".into()));
    assert_eq!(only(&book("see the section \"adding a printer\".")), Some("3. Adding a Printer".into()));
    assert_eq!(found(&book("see \"man printcap\"")), []);
    assert_eq!(
        only(&book("Siehe über `ä`; see ''Adding a Printer'', and \"it\" is 'so'.")),
        Some("3. Adding a Printer".into())
    );
    assert_eq!(found(&book("see \"adding a\nprinter\", or \"Adding a “Printer”\"")), []);
    assert_eq!(title("A. B, and' more"), Some("A. B, and"));
    assert_eq!(title(&format!("{}\"", "é".repeat(80))).map(str::len), Some(160));
    assert_eq!(title(&format!("{}.\"", "é".repeat(80))).map(str::len), Some(160));
    assert_eq!(title(&format!("{}\"", "é".repeat(81))), None);
}

#[test]
fn signs_and_letters_beside_a_reference() {
    let book = |text| [(1, "Über alles"), (2, "3.2 Schlüssel"), (0, text)];
    assert_eq!(only(&book("Schlüssel: § 3.2, über alles.")), Some("3.2 Schlüssel".into()));
    assert_eq!(found(&book("Die ésection 3.2 und section 3é, § A.")), []);
}
