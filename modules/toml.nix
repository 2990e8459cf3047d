# The file drover.toml of these settings: what they do not say is left out.
{ lib, formats }:
settings:
let
  said =
    value:
    if builtins.isAttrs value then
      lib.filterAttrs (_name: inner: inner != null && inner != { }) (lib.mapAttrs (_name: said) value)
    else
      value;
in
(formats.toml { }).generate "drover.toml" (said settings)
