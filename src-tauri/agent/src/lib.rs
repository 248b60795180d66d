//! Protocol of the Cove agent.
