# drover, for `callPackage`. With `pkgsStatic` it becomes one file that needs nothing else on the machine; else the
# programs that it calls come behind those that are already on PATH.
{
  lib,
  stdenv,
  rustPlatform,
  installShellFiles,
  makeBinaryWrapper,
  gitMinimal,
  openssh,
}:
let
  manifest = (lib.importTOML ../Cargo.toml).package;
  isWrapped = !stdenv.hostPlatform.isStatic;
in
rustPlatform.buildRustPackage {
  pname = manifest.name;
  inherit (manifest) version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.lock
      ../Cargo.toml
      ../askama.toml
      ../nix/eval
      ../src
      ../tests
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  nativeBuildInputs = [ installShellFiles ] ++ lib.optional isWrapped makeBinaryWrapper;

  # The other tests run whole Nixes beside each other, as root and with a network: nix/test does that.
  cargoTestFlags = [ "--lib" ];
  nativeCheckInputs = [ gitMinimal ];

  postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    for shell in bash zsh fish; do
      "$out/bin/drover" completions "$shell" > "drover.$shell"
    done
    installShellCompletion --cmd drover --bash drover.bash --zsh drover.zsh --fish drover.fish
    mkdir man
    "$out/bin/drover" man man
    installManPage man/*
  '';

  postFixup = lib.optionalString isWrapped ''
    wrapProgram "$out/bin/drover" --suffix PATH : ${
      lib.makeBinPath [
        gitMinimal
        openssh
      ]
    }
  '';

  meta = {
    inherit (manifest) description;
    license = with lib.licenses; [
      mit
      asl20
    ];
    mainProgram = "drover";
    platforms = lib.platforms.linux ++ lib.platforms.darwin;
  };
}
