"""Train in three stages and look at what they did: the commands of this room and their parts."""
