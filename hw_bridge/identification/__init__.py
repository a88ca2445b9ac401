"""What an arm truly is, from its logs: payload, friction and rotors."""
