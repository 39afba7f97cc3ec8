package udpio

// ParseControl is parseControl, for its fuzz target.
var ParseControl = parseControl

// PutControl is putControl.
var PutControl = putControl

// SendControl is the room that a message's control has.
const SendControl = sendControl
