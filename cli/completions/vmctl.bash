# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion for vmctl. The words come from vmctl itself, the machines' names from umbrad.
_vmctl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} words

	COMPREPLY=()
	words=$(vmctl __complete -- "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)
	if [[ $words == @files ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		compopt -o filenames 2>/dev/null
		return
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _vmctl vmctl
