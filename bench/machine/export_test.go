package machine

// ParseBusy exports parseBusy for tests.
var ParseBusy = parseBusy
