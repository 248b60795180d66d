# Read by every interactive bash.
[ -n "$PS1" ] && . /etc/shrc
