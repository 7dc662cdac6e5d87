"""What servers share: stop rules, model folders, engines of other environments."""
