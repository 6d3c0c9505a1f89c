# shellcheck shell=bash
# Sourced by the launchers before they do anything: with --help as the first argument, the comment
# at the head of the script is printed, and that is all.
case "${1:-}" in
  -h | --help)
    script="$0"
    [ -f "$script" ] || script="$OLDPWD/$0"  # where the script has changed the folder
    awk 'NR == 1 || /^#(SBATCH| shellcheck)/ { next } !/^#/ { exit } { sub(/^# ?/, ""); print }' \
      "$script"
    exit ;;
esac

# one_folder "$@": what a script says that takes [OUT] and nothing else.
one_folder() {
  [[ $# -le 1 && "${1:-}" != -* ]] && return
  echo "error: $*: expected [OUT], one folder; --help says more" >&2
  exit 2
}
