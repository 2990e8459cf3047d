//! The options of `modules/options.nix`, the keys of drover.toml, what `doctor --show-config` shows and the page of the
//! modules are the same things: one that is added in one place and forgotten in another fails here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use drover::config::{Env, File, Settings, Words, builders, shown};
use serde_json::{Value, json};

use crate::support::keys::{Takes, keys};
use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::Site;
use crate::support::stub::{ROOT, value};

/// All options of a module below a path, with those of the submodules in them.
const LIST: &str = r#"
  let
    list = options: builtins.concatLists (lib.mapAttrsToList (name: option:
      let
        inner = option.type.getSubOptions option.loc;
      in
      if option._type or null != "option" then
        list option
      # Settings are listed by themselves.
      else if inner == { } || name == "settings" then
        [ {
          name = builtins.concatStringsSep "." option.loc;
          type = option.type.description;
          required = !(option ? default);
          default = if lib.isDerivation (option.default or null) then null else option.default or null;
          example = option.example or null;
          inherit (option) description;
        } ]
      else
        list inner) options);
    evaluated = lib.evalModules {
      modules = [ MODULE ];
      specialArgs = { inherit pkgs; utils = { }; };
    };
  in
  list evaluated.options
"#;

/// One option.
struct OptionOf {
    /// What it takes, in the words of the module system, without that it may be left out.
    takes: String,
    required: bool,
    default: Value,
    example: Value,
    description: String,
}

fn options(lab: &Lab, module: &str) -> BTreeMap<String, OptionOf> {
    let list = value(lab, &LIST.replace("MODULE", module));
    let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
    let one = |mut option: Value| {
        let takes = text(&option["type"]);
        let of = OptionOf {
            takes: takes.strip_prefix("null or ").unwrap_or(&takes).to_owned(),
            required: option["required"] == json!(true),
            default: option["default"].take(),
            example: option["example"].take(),
            description: text(&option["description"]),
        };
        (text(&option["name"]), of)
    };
    list.as_array().unwrap().iter().cloned().map(one).collect()
}

fn toml_options(lab: &Lab) -> BTreeMap<String, OptionOf> {
    options(lab, "ROOT/modules/options.nix")
}

/// A drover.toml with these keys and no others; a table of a name is called `x`.
fn file_of<'a>(values: impl IntoIterator<Item = (&'a str, Value)>) -> String {
    let mut root = toml::Table::new();
    for (key, value) in values {
        let mut path: Vec<&str> = key.split('.').map(|part| if part == "<name>" { "x" } else { part }).collect();
        let last = path.pop().unwrap();
        let table = path.into_iter().fold(&mut root, |table, part| {
            let below = table.entry(part).or_insert_with(|| toml::Table::new().into());
            below.as_table_mut().unwrap()
        });
        table.insert(last.to_owned(), toml::Value::try_from(value).unwrap());
    }
    root.to_string()
}

/// What has to stand beside a key.
fn beside<'a>(key: &str, options: &'a BTreeMap<String, OptionOf>) -> Vec<(&'a str, Value)> {
    let Some((table, _)) = key.rsplit_once('.') else { return Vec::new() };
    let needed = options.iter().filter(|(name, option)| {
        option.required && name.as_str() != key && name.rsplit_once('.').is_some_and(|(of, _)| of == table)
    });
    let mut needed: Vec<_> = needed.map(|(name, option)| (name.as_str(), option.example.clone())).collect();
    // A notification goes somewhere.
    if table == "notify.<name>" && (key.ends_with("token-env") || key.ends_with("token-file")) {
        needed.push(("notify.<name>.webhook", json!("https://ops.example.org")));
    } else if key.ends_with(".on") || key.ends_with(".branches") {
        needed.push(("notify.<name>.command", json!(["mail"])));
    }
    needed
}

/// The example of an option; in full where that of people is cut short.
fn example(key: &str, option: &OptionOf) -> Value {
    let whole = "AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    match &option.example {
        Value::String(text) if key.ends_with("host-key") => json!(text.replace("AAAA…", whole)),
        other => other.clone(),
    }
}

fn parse(text: &str) -> File {
    File::parse(text, Path::new("drover.toml")).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn each_key_of_the_file_is_an_option_and_each_option_a_key() {
    each_nix(|nix| {
        let (options, keys) = (toml_options(&Lab::plain(nix)), keys());
        let of_options: BTreeSet<&String> = options.keys().collect();
        let of_file: BTreeSet<&String> = keys.keys().collect();
        assert_eq!(of_options, of_file, "modules/options.nix (left) and src/config/file.rs (right) differ");
        for (name, takes) in keys {
            let words = &options[&name].takes;
            let fits = match takes {
                Takes::Text => words == "string" || words.starts_with("string matching") || words.starts_with("one of"),
                Takes::Texts => words == "list of string" || words.starts_with("list of one of"),
                Takes::Whole => words.contains("integer") && !words.contains("floating"),
                Takes::Number => words.contains("floating point"),
                Takes::Several => words.contains(" or "),
            };
            assert!(fits, "{name}: the file takes {takes:?}, the option: {words}");
        }
    });
}

#[test]
fn what_an_option_gives_as_an_example_is_taken_by_the_file_and_what_it_demands_demanded() {
    let options = toml_options(&Lab::plain(&newest()));
    for (key, option) in &options {
        assert!(!option.description.is_empty() && !option.example.is_null(), "{key} is not explained");
        let with = || beside(key, &options);
        parse(&file_of(with().into_iter().chain([(key.as_str(), option.example.clone())])));
        // Without the key, but with its table.
        let table = key.rsplit_once('.').map_or("", |(table, _)| table);
        let text = file_of(with()) + &format!("\n[{}]\n", table.replace("<name>", "x"));
        let text = if with().is_empty() { text } else { file_of(with()) };
        let without = File::parse(&text, Path::new("drover.toml"));
        assert_eq!(without.is_err(), option.required, "{key} may be left out: {without:?}\n{text}");
        // What is wrong is told with an example.
        let wrong = if option.takes.contains("floating point") { json!("much") } else { json!(0.5) };
        let text = file_of(with().into_iter().chain([(key.as_str(), wrong)]));
        let error: drover::error::Error = File::parse(&text, Path::new("drover.toml")).unwrap_err().into();
        let last = key.rsplit('.').next().unwrap();
        assert!(error.hint.as_deref().unwrap_or_default().starts_with(&format!("{last} = ")), "{key}: {error:?}");
    }
}

/// What a run refuses with the reason, whatever its value.
const REFUSED: [&str; 1] = ["cache.<name>.skip-licenses"];

#[test]
fn each_key_is_shown_with_the_line_that_says_it() {
    let options = toml_options(&Lab::plain(&newest()));
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "https://hooks.example.org").unwrap();
    let env = Env::of([("HOME", "/home/me")]);
    for (key, option) in &options {
        // What is read when the settings are made has to be there.
        let is_read =
            key.ends_with("slack-file") || key.ends_with("webhook-file") || *key == "notify.<name>.token-file";
        let value = if is_read { json!(secret) } else { example(key, option) };
        let text = file_of(beside(key, &options).into_iter().chain([(key.as_str(), value)]));
        let file = parse(&text);
        let settings = match Settings::resolve(Words::default(), &env, file.clone()) {
            Ok(settings) if !REFUSED.contains(&key.as_str()) => settings,
            Err(_) if REFUSED.contains(&key.as_str()) => continue,
            other => panic!("{key}: {other:?}\n{text}"),
        };
        let builders = builders::all(&settings, "", builders::read).unwrap();
        let rows = shown(&Words::default(), &env, &file, &settings, &builders);
        let name = key.replace("<name>", "x");
        let row = rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{key} is not shown:\n{text}"));
        let line = file.lines[&name];
        assert_eq!(row.origin, format!("drover.toml:{line}"), "{key}");
        assert!(!row.values.is_empty(), "{key} is shown without a value");
    }
}

/// The same through the program, for a file with all of it.
#[test]
fn doctor_shows_all_that_a_file_says() {
    let site = Site::of(Lab::plain(&newest()), "{ outputs = _: { }; }");
    let options = toml_options(&site.lab);
    let at_once = |key: &str| !key.starts_with("notify.") && !REFUSED.contains(&key);
    let all = options.iter().filter(|(key, _)| at_once(key)).map(|(key, of)| (key.as_str(), example(key, of)));
    // Of two ways to say it one is enough.
    let all = all.filter(|(key, _)| *key != "builder.<name>.ssh-key-env");
    let told = [("notify.<name>.slack-env", json!("HOOK")), ("notify.<name>.on", json!(["failure"]))];
    site.edit("drover.toml", &file_of(all.chain(told)));
    let ran = site.exits(0, &["doctor", "--show-config", "--json"]);
    let document: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let rows = document["drover"].as_array().unwrap();
    let from_file = rows.iter().filter(|row| row["origin"].as_str().unwrap().starts_with("drover.toml:"));
    let shown: BTreeSet<String> =
        from_file.map(|row| row["name"].as_str().unwrap().replace(".x.", ".<name>.")).collect();
    let left_out = |key: &&String| at_once(key) && *key != "builder.<name>.ssh-key-env";
    let mut expected: BTreeSet<String> = options.keys().filter(left_out).cloned().collect();
    expected.extend(["notify.<name>.slack-env", "notify.<name>.on"].map(str::to_owned));
    assert_eq!(shown, expected);
}

/// A table of options as it stands in the page.
fn table(options: &BTreeMap<String, OptionOf>, column: &str, value: impl Fn(&OptionOf) -> &Value) -> String {
    let escape = |text: &str| text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ");
    let mut text = format!("| option | takes | {column} | |\n|---|---|---|---|\n");
    for (name, option) in options {
        let value = value(option);
        let value = if value.is_null() { String::new() } else { format!("`{}`", escape(&value.to_string())) };
        let takes = escape(&option.takes).replace("string matching the pattern /.*", "absolute path");
        let takes = takes.split(", meaning").next().unwrap();
        let needed = if option.required { ", needed" } else { "" };
        text += &format!("| `{name}` | {takes}{needed} | {value} | {} |\n", escape(&option.description));
    }
    text
}

/// The page is written anew with `INSTA_UPDATE=always`, as other texts are.
#[test]
#[expect(clippy::disallowed_methods, reason = "told by a variable to write")]
fn the_page_of_the_modules_has_all_options() {
    let lab = Lab::plain(&newest());
    let services: BTreeMap<String, OptionOf> = options(&lab, "ROOT/modules/nixos.nix");
    let path = format!("{ROOT}/modules/README.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let mut written = page.clone();
    for (what, table) in [
        ("drover.toml", table(&toml_options(&lab), "for example", |option| &option.example)),
        ("services.drover", table(&services, "default", |option| &option.default)),
    ] {
        let (begin, end) = (format!("<!-- {what}: begin -->\n"), format!("<!-- {what}: end -->"));
        let from = written.find(&begin).unwrap() + begin.len();
        let to = written.find(&end).unwrap();
        written.replace_range(from..to, &table);
    }
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(&path, &written).unwrap();
    }
    assert_eq!(page, written, "modules/README.md is not what the modules say; INSTA_UPDATE=always writes it");
}
