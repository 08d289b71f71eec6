//! What is a fact of a model, what is a mistake, and what is loaded once.

use serde_json::json;

use super::*;

fn model(entry: serde_json::Value) -> ModelRef {
    serde_json::from_value(entry).unwrap()
}

#[test]
fn facts_hold_what_answers_depend_on() {
    let weights = model(json!({"weights": "file:a.gguf", "sha256": "AB".repeat(32)}));
    assert_eq!(serde_json::to_value(&weights).unwrap(), json!(null));
    let env = Env { base: Path::new("/pipelines") };
    let asset = weights.assets(&env).remove(0);
    assert_eq!((asset.name.as_str(), asset.sha256), ("model", Some("ab".repeat(32))));
    let server = json!({
        "server": "http://h/v1/", "name": "m", "api_key": "k3y", "parallel": 3, "timeout": 9, "stream": true, "requests_per_minute": 60,
        "price": {"prompt": 1.0, "output": 2.0}, "max_cost": 3.0, "max_tokens_total": 9,
    });
    let server = model(server);
    assert_eq!(serde_json::to_value(&server).unwrap(), json!({"server": "http://h/v1", "name": "m"}));
    assert!(!format!("{server:?}").contains("k3y"));
    assert!(server.assets(&env).is_empty());
    assert_eq!(model(json!({"weights": ["a", "b"]})).0.weights, Some(Sources(vec!["a".into(), "b".into()])));
}

#[test]
fn a_model_is_one_thing_and_whole() {
    let message = |entry| model(entry).check("model").unwrap_err().message;
    assert!(message(json!({})).contains("needs `weights`"));
    assert!(message(json!({"weights": "a", "server": "http://h", "name": "m"})).contains("not both"));
    assert!(message(json!({"weights": "a", "sha256": "51ab"})).contains("64 hexadecimal"));
    assert!(message(json!({"weights": "a", "api_key": "k"})).contains("belong to a `server`"));
    assert!(message(json!({"server": "h", "name": "m"})).contains("begins with"));
    assert!(message(json!({"server": "http://h"})).contains("`name`"));
    assert!(message(json!({"server": "http://h", "name": "m", "max_cost": 1.0})).contains("needs the `price`"));
    assert!(message(json!({"weights": "a", "max_tokens_total": 1})).contains("weights cost nothing"));
    assert!(model(json!({"server": "http://h", "name": "m"})).check_local("model").is_err());
    assert!(model(json!({"weights": "a"})).check_local("model").is_ok());
    assert!(serde_json::from_value::<ModelRef>(json!({"weigths": "a"})).is_err());
}

#[test]
fn what_somebody_holds_is_not_loaded_again() {
    static SHARED: Shared<&str, String> = Shared::new();
    let load = |text: &str| SHARED.get(&"a", || Ok(text.to_owned())).unwrap();
    let first = load("one");
    assert!(Arc::ptr_eq(&first, &load("two")));
    drop(first);
    assert_eq!(*load("three"), "three", "and is let go when nobody does");
}
