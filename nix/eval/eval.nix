# What drover asks a flake's outputs, inside `nix repl`. Embedded in drover and handed to each evaluator process once.
#
# Every function answers with plain data (no derivations, no string context), which `reply` prints as one line of JSON.
# Arguments come as JSON too. `root` is one output of the flake (`packages`), `path` the attribute names below it.
# Values are forced only as far as the answer needs: names are listed without looking at what they name.
let
  inherit (builtins)
    appendContext
    attrNames
    concatStringsSep
    elem
    elemAt
    filter
    foldl'
    genList
    getContext
    head
    isAttrs
    isList
    isString
    length
    map
    match
    pathExists
    removeAttrs
    seq
    storeDir
    stringLength
    substring
    toJSON
    toXML
    trace
    toString
    tryEval
    typeOf
    unsafeDiscardStringContext
    unsafeGetAttrPos
    ;

  # Put together here so that no line typed into the repl, which echoes it, contains a marker.
  marker = word: id: "@drover-" + word + ":" + id;

  # Stands for an output that the flake does not have.
  absent = {
    __droverAbsent = true;
  };
  # The outputs that drover knows by name; `with none; packages` is the flake's own `packages` if it has any.
  none = {
    nixosConfigurations = absent;
    darwinConfigurations = absent;
    homeConfigurations = absent;
    packages = absent;
    checks = absent;
    devShells = absent;
    formatter = absent;
    apps = absent;
    hydraJobs = absent;
    legacyPackages = absent;
  };
  isAbsent = value: isAttrs value && value ? __droverAbsent;

  isDerivation = value: isAttrs value && value.type or null == "derivation";
  plain = unsafeDiscardStringContext;
  typeName = value: if isAttrs value then "a set" else "a ${typeOf value}";
  startsWith = prefix: text: substring 0 (stringLength prefix) text == prefix;

  # The value at `path` and where its name is written, or how far it got: { found, value, place | at, names }.
  walk =
    root: path:
    foldl' (
      state: part:
      if !state.found then
        state
      else if isAttrs state.value && state.value ? ${part} then
        {
          found = true;
          value = state.value.${part};
          place = unsafeGetAttrPos part state.value;
          at = state.at + 1;
        }
      else
        {
          found = false;
          inherit (state) at;
          names = if isAttrs state.value then attrNames state.value else [ ];
        }
    ) (if isAbsent root then { found = false; at = -1; names = [ ]; } else { found = true; value = root; at = 0; }) path;

  # Where the name at the end of a walk is written, as `file:line:column`; null where Nix does not know.
  written =
    state:
    let
      place = state.place or null;
    in
    if place == null then null else "${plain place.file}:${toString place.line}:${toString place.column}";

  missing = state: {
    missing = {
      inherit (state) at names;
    };
  };

  # Which outputs `nix build` takes when nobody names any: the selected one, else what `meta` says, else `out`.
  wantedOutputs =
    drv:
    let
      chosen =
        if drv ? outputSpecified then
          (if drv.outputSpecified && drv ? outputName then [ drv.outputName ] else [ ])
        else
          drv.meta.outputsToInstall or [ ];
    in
    if chosen == [ ] then [ "out" ] else chosen;

  # What a derivation says about itself, as far as it says it in the usual form and in few words. `reply` sees to it that
  # what does not evaluate in here costs only this.
  about =
    drv:
    let
      attempt =
        value:
        let
          tried = tryEval value;
        in
        if tried.success then tried.value else null;
      text =
        value:
        let
          known = attempt value;
        in
        if isString known && stringLength known <= 200 then plain known else null;
      meta = attempt (drv.meta or null);
      license =
        given:
        let
          known = attempt given;
          named = filter (name: name != null) [
            (text (known.spdxId or null))
            (text (known.shortName or null))
            (text (known.fullName or null))
          ];
        in
        if isString known then
          text known
        else if named == [ ] then
          null
        else
          head named;
      given = attempt (meta.license or null);
      licenses = if isList given then given else [ given ];
      count = if length licenses < 16 then length licenses else 16;
    in
    {
      position = text (meta.position or null);
      license = filter (name: name != null) (genList (n: license (elemAt licenses n)) count);
      pname = text (drv.pname or null);
      version = text (drv.version or null);
      cpe = text (meta.identifiers.cpe or null);
    };

  describe =
    drv:
    let
      outputs = drv.outputs or [ "out" ];
      path =
        name:
        (drv.${name} or (if name == drv.outputName or "out" then drv else { })).outPath or null;
      text = value: if isString value then plain value else null;
    in
    {
      drv = plain drv.drvPath;
      name = plain drv.name;
      system = plain (drv.system or "");
      outputs = map (name: {
        inherit name;
        path = text (path name);
      }) outputs;
      wanted = wantedOutputs drv;
      meta = about drv;
    };

  # The derivation that makes the program of an app: among those its text was made from, the one whose output the
  # program lies in. A program that is a plain source needs nothing built.
  describeApp =
    app:
    let
      program = app.program;
      context = getContext program;
      drvs = filter (drv: context.${drv} ? outputs) (attrNames context);
      # Reading the .drv back is the only way from a context to output paths.
      owns = drv: foldl' (found: name: found || startsWith ((import drv).${name}.outPath) (plain program)) false context.${drv}.outputs;
      owner = if length drvs == 1 then head drvs else head (filter owns drvs ++ drvs);
    in
    if !isString program then
      throw "the app's 'program' is ${typeName program} where a string is wanted"
    else if drvs == [ ] then
      { nothing = "the program is a plain file: ${plain program}"; }
    else
      {
        drv = owner;
        wanted = context.${owner}.outputs;
      };

  toplevel = value: value.config.system.build.toplevel;

  # From the value of an attr to what is built for it, by what sort of thing it is said to be.
  target = {
    nixos = toplevel;
    darwin = value: if value ? config.system.build.toplevel then toplevel value else value.system;
    home = value: value.activationPackage;
    derivation = value: value;
    # By name only: whatever it looks like.
    any =
      value:
      if isDerivation value || !isAttrs value then
        value
      else if value ? config.system.build.toplevel then
        toplevel value
      else if value ? activationPackage then
        value.activationPackage
      else
        value;
  };

  isApp = value: isAttrs value && value.type or null == "app" && value ? program;

  # How a function names its argument, as XML: `<varpat name="final" />`. Null for what is no function written in Nix.
  pattern =
    value:
    let
      xml = toXML value;
      found = match ".*<(varpat|attrspat)( name=\"([^\"]*)\")?.*" xml;
    in
    if typeOf value != "lambda" || found == null then null else { plain = head found == "varpat"; name = elemAt found 2; };

  # What a value has to be, or an error that says what it is.
  wanted = {
    set = value: if isAttrs value then value else throw "it is ${typeName value} where a set is wanted";
    derivation = value: if isDerivation value then value else throw "it is ${typeName value} where a derivation is wanted";
    string = what: value: if isString value then value else throw "its '${what}' is ${typeName value} where a string is wanted";
    # Nix refuses texts that refer to something built.
    plain =
      what: value:
      if getContext (wanted.string what value) == { } then value else throw "its '${what}' refers to a store path, which is not allowed";
    attr = what: value: if value ? ${what} then value.${what} else throw "it has no '${what}'";
    only =
      names: value:
      let
        other = filter (name: !(elem name names)) (attrNames value);
      in
      if other == [ ] then value else throw "it has an attribute '${head other}', which is not supported there";
  };

  # What `nix flake check` demands of a value, by what sort of thing it is: each is true, or an error. Nothing is forced
  # that Nix does not force.
  demands = {
    value = value: seq value true;
    derivation =
      value:
      let
        path = plain (wanted.string "drvPath" value.drvPath);
      in
      seq (wanted.string "name" (wanted.derivation value).name) (
        if startsWith (storeDir + "/") path && match ".*[.]drv" path != null then
          true
        else
          throw "its 'drvPath' is no derivation in the store: ${path}"
      );
    host =
      value:
      let
        state = walk value [ "config" "system" "build" "toplevel" ];
      in
      if !state.found then
        throw "attribute 'config.system.build.toplevel' missing"
      else if isDerivation state.value then
        true
      else
        throw "its 'config.system.build.toplevel' is ${typeName state.value} where a derivation is wanted";
    app =
      value:
      let
        app = wanted.set value;
        meta = wanted.set app.meta;
      in
      seq (wanted.plain "type" (wanted.attr "type" app)) (
        seq (wanted.string "program" (wanted.attr "program" app)) (
          seq (if app ? meta && meta ? description then wanted.plain "meta.description" meta.description else null) (
            seq (wanted.only [ "type" "program" "meta" ] app) true
          )
        )
      );
    overlay =
      value:
      let
        argument = pattern value;
      in
      if argument == null then
        throw "it is ${typeName value} where a function is wanted"
      else if argument.plain && elem argument.name [ "final" "_final" "_" ] then
        true
      else
        throw "it is a function whose first argument is not called 'final'";
    template =
      value:
      let
        template = wanted.set value;
        path = wanted.attr "path" template;
      in
      if !pathExists path then
        throw "its 'path' does not exist: ${toString path}"
      else
        seq (wanted.plain "description" (wanted.attr "description" template)) (
          seq (wanted.only [ "path" "description" "welcomeText" ] template) true
        );
    bundler = value: if pattern value == null then throw "it is ${typeName value} where a function is wanted" else true;
  };

  # What Nix warns of without refusing it.
  remarks = {
    app =
      app:
      if !(app ? meta) then
        [ "it has no 'meta'" ]
      else if !(app.meta ? description) then
        [ "it has no 'meta.description'" ]
      else
        [ ];
  };

  # Where the program of an app lies, and what makes it.
  checkedApp =
    app:
    seq (demands.app app) ((describeApp app) // { program = plain app.program; warnings = remarks.app app; });
in
{
  inherit absent none;

  # One answer as one line on standard output. One that has a `meta` is said without it before, on standard error: should
  # `meta` not evaluate, or take the process along, that is the answer.
  reply =
    id: value:
    let
      line = value: marker "answer" id + " " + toJSON value;
    in
    if value ? meta then trace (line (removeAttrs value [ "meta" ])) (line value) else line value;

  # What is asked of each of some names, one after the other, as functions of `api` (this very set) answer it. Each answer
  # is said on standard error as soon as it is known, with its number: the first one is `first`.
  many =
    api: outputs: first: groups:
    let
      one =
        group: id: name:
        let
          id' = toString id;
          path = group.arguments.path ++ [ name ];
          value = api.${group.function} (outputs.${group.output} or absent) (group.arguments // { inherit path; });
        in
        # `reply` has said the answer without its `meta` by the time it gives a line.
        trace (api.reply id' value) (trace (marker "end" id') (id + 1));
    in
    foldl' (id: group: foldl' (one group) id group.names) first groups;

  # Says on standard output and on standard error that all of the answer has been printed.
  end = id: trace (marker "end" id) (marker "end" id);

  # Names below `path`; the value there is forced, what it holds is not.
  names =
    root:
    { path }:
    let
      state = walk root path;
    in
    if !state.found then
      missing state
    else if isAttrs state.value then
      { names = attrNames state.value; }
    else
      throw "it is ${typeName state.value} where a set is wanted";

  # Whether there is something at `path`; it is not forced.
  exists =
    root:
    { path }:
    let
      state = walk root path;
    in
    if state.found then { found = true; } else missing state;

  # What is at `path`, for walks through sets of derivations: a derivation, a set with names, or something else.
  node =
    root:
    { path }:
    let
      state = walk root path;
      value = state.value;
    in
    if !state.found then
      missing state
    else if isDerivation value || isApp value || (isAttrs value && (value ? config.system.build.toplevel || value ? activationPackage)) then
      { node = "attr"; }
    else if isAttrs value then
      {
        node = "set";
        names = filter (name: name != "recurseForDerivations") (attrNames value);
        recurse = value.recurseForDerivations or null;
      }
    else
      { node = "other"; };

  # The derivation of the attr at `path`.
  drv =
    root:
    { path, how }:
    let
      state = walk root path;
      value = (target.${how} or target.any) state.value;
    in
    if !state.found then
      missing state
    else if how == "app" || (how == "any" && isApp state.value) then
      (if isAttrs state.value && state.value ? program then describeApp state.value // { written = written state; } else throw "it is no app: it has no 'program'")
    else if isDerivation value then
      describe value // { written = written state; }
    else
      throw "it is ${typeName value} where a derivation is wanted";

  # What `nix flake check` says of what is at `path`, and no more: true, or an error.
  demand =
    root:
    { path, rule }:
    let
      state = walk root path;
    in
    if !state.found then
      missing state
    else
      seq (demands.${rule} state.value) {
        nothing = "it is as it should be";
        warnings = (remarks.${rule} or (value: [ ])) state.value;
      };

  # Where the name of what is at `path` is written.
  place =
    root:
    { path }:
    let
      state = walk root path;
    in
    if state.found then { written = written state; } else missing state;

  # The app at `path`: what Nix demands, and the derivation behind it.
  app =
    root:
    { path }:
    let
      state = walk root path;
    in
    if state.found then checkedApp state.value // { written = written state; } else missing state;

  # What is at `path` in a set of jobs, as Nix walks it: a derivation, or a set with names.
  job =
    root:
    { path }:
    let
      state = walk root path;
      value = wanted.set state.value;
    in
    if !state.found then
      missing state
    else if isDerivation value then
      { node = "attr"; }
    else
      { node = "set"; names = attrNames value; };

  # What the flake's own file asks Nix to be set to, as nix.conf would have it, and whether a lock lies beside it. The
  # context makes Nix look where the store really is.
  own =
    { source, dir }:
    let
      at = name: appendContext (source + dir + "/" + name) { ${source} = { path = true; }; };
      config = (import (at "flake.nix")).nixConfig or { };
      text =
        value:
        if isList value then
          concatStringsSep " " (map text value)
        else if value == true then
          "true"
        else if value == false then
          "false"
        else if isAttrs value || typeOf value == "lambda" then
          ""
        else
          plain (toString value);
      place = name: unsafeGetAttrPos name config;
    in
    {
      settings = map (name: {
        inherit name;
        value = text config.${name};
        line = (place name).line or null;
        column = (place name).column or null;
      }) (attrNames config);
      has_lock = pathExists (at "flake.lock");
    };

  # The outputs of a flake as they would be if it came from no commit and no time: what says so is the same in every
  # such flake, as far as the flake has it. The source tree stays what it is. Inputs that the flake hands on to itself (a
  # flake below it, `follows = ""`) know where they come from all the same.
  masked =
    { reference }:
    let
      flake = builtins.getFlake reference;
      inherit (flake) outPath inputs;
      sourceInfo = flake.sourceInfo // builtins.intersectAttrs flake.sourceInfo {
        rev = "0000000000000000000000000000000000000000";
        shortRev = "0000000";
        dirtyRev = "0000000000000000000000000000000000000000-dirty";
        dirtyShortRev = "0000000-dirty";
        revCount = 0;
        lastModified = 0;
        lastModifiedDate = "19700101000000";
        narHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
      };
      outputs = (import (outPath + "/flake.nix")).outputs (inputs // { inherit self; });
      # In the order in which Nix does it.
      self = outputs // sourceInfo // {
        inherit outPath inputs outputs sourceInfo;
        _type = "flake";
      };
    in
    outputs // { __droverMasked = true; };

  # The names of all outputs of a flake; those that no question can name are forced. Also the names in those of `sets`
  # and, where it is true, in their sets: null where there are none, and not `ok` where that does not evaluate. `here`
  # are the systems that are looked at, or null for all.
  outline =
    { outputs, ... }:
    { sets, here }:
    let
      isVariable =
        name:
        match "[a-zA-Z_][a-zA-Z0-9_'-]*" name != null
        && !(elem name [ "if" "then" "else" "assert" "with" "let" "in" "rec" "inherit" "or" ]);
      look =
        value:
        let
          tried = tryEval (if isAttrs value then attrNames value else null);
        in
        {
          ok = tried.success;
          names = if tried.success then tried.value else null;
        };
      set =
        name: value:
        let
          all = look value;
          seen = if here == null then value else builtins.intersectAttrs here value;
        in
        all // { sets = if all.names == null || !sets.${name} then { } else builtins.mapAttrs (_: look) seen; };
    in
    {
      names = attrNames outputs;
      forced = map (name: seq outputs.${name} name) (filter (name: !(isVariable name)) (attrNames outputs));
      sets = builtins.mapAttrs set (builtins.intersectAttrs sets outputs);
    };

  # Whether a flake that was loaded as a value is the tree at `path`.
  given =
    flake:
    { path }:
    seq flake.outputs { loaded = plain flake.sourceInfo.outPath == path; };

  # Whether this evaluator may read this store path: it may if that is the tree that it has loaded. The context makes
  # Nix look where the store really is.
  loaded =
    { path }:
    {
      loaded = builtins.pathExists (appendContext path { ${path} = { path = true; }; });
    };
}
