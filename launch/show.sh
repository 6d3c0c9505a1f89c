# shellcheck shell=bash
# Sourced: prints a command as it would be typed.
show() {
  local word
  for word in "$@"; do
    case "$word" in
      *[\$\`\"\\]*) word="${word@Q}" ;;
      *[!A-Za-z0-9_./:=,@%+-]* | '') word="\"$word\"" ;;
    esac
    printf '%s ' "$word"
  done
  echo
}
